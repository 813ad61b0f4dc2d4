"""Models on the Hugging Face Hub: save_pretrained, from_pretrained, push_to_hub."""

from __future__ import annotations

import json
from inspect import signature
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData, PyTorchModelHubMixin, hf_hub_download
from typing_extensions import Self

from swin_umamba.common.files import write_text
from swin_umamba.models.factory import create_model
from swin_umamba.models.loading import require_whole
from swin_umamba.weights.places import LAST as WEIGHTS
from swin_umamba.weights.places import weights_in
from swin_umamba.weights.saved import left_of_a_machine, portable, save_weights

_HEADER = set(signature(ModelCardData).parameters) - {"kwargs"}
_CARD = """\
---
{{ card_data }}
---

A Swin-UMamba model (arXiv:2402.03302) for 2-D medical image segmentation, written by
[swin-umamba](https://pypi.org/project/swin-umamba/); config.json says which, and its channels.

```python
from swin_umamba.models import SegmentationModel

model = SegmentationModel.from_pretrained({{ repo_id | default("this repository", true) | tojson }})
```
{% if model_description %}
{{ model_description }}
{% endif %}"""


class HubModel(
    PyTorchModelHubMixin,
    library_name="swin-umamba",
    pipeline_tag="image-segmentation",
    tags=["image-segmentation", "medical-imaging", "mamba", "vmamba", "swin-umamba"],
    model_card_template=_CARD,
):
    """Hub support for models of `create_model`; a single safetensors file contains everything."""

    config: dict[str, Any] | None
    deep_supervision: bool

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """A repository's model card; kwargs: header fields (license, language, datasets, ...) as in
        huggingface_hub.ModelCardData, and variables of the card's text."""
        header = {name: kwargs.pop(name) for name in _HEADER & kwargs.keys()}
        data: dict[str, Any] = self._hub_mixin_info.model_card_data.to_dict()  # type: ignore[no-untyped-call]
        card: ModelCard = ModelCard.from_template(
            card_data=ModelCardData(**{**data, **header}),
            template_str=self._hub_mixin_info.model_card_template,
            **kwargs,
        )
        return card

    def _save_pretrained(self, save_directory: Path) -> None:
        if self.config is None:
            raise ValueError(
                "the model was not made by create_model, so it has no name to load it by"
            )
        # deep_supervision may have been switched since.
        self.config = {**self.config, "deep_supervision": self.deep_supervision}
        save_weights(self, save_directory / WEIGHTS)  # type: ignore[arg-type]
        write_text(save_directory / "config.json", json.dumps(portable(self.config), indent=2))

    def push_to_hub(
        self, repo_id: str, *, model_card_kwargs: dict[str, Any] | None = None, **options: Any
    ) -> str:
        """Upload config, weights and a model card; options: those of PyTorchModelHubMixin.

        The card names the repository if `repo_id` includes its owner. Returns the commit's URL.
        """
        named = {"repo_id": repo_id} if "/" in repo_id else {}
        card = {**named, **(model_card_kwargs or {})}
        return super().push_to_hub(repo_id, model_card_kwargs=card, **options)

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, map_location: str = "cpu", strict: bool = True, **options: Any
    ) -> Self:
        """Any of our models by its file, on `map_location`; every tensor must fit."""
        if not strict:
            raise ValueError("strict: got False, expected True: no tensor may be skipped silently")
        where = (
            "revision",
            "cache_dir",
            "force_download",
            "local_files_only",
            "token",
            "proxies",  # this and the next argument exist before huggingface_hub 1.0
            "resume_download",
        )
        download = {name: options.pop(name) for name in where if name in options}
        folder = Path(model_id)
        if folder.is_dir():
            path = weights_in(folder) or folder / WEIGHTS
        else:
            path = Path(hf_hub_download(repo_id=model_id, filename=WEIGHTS, **download))
        # What remains are the arguments from config.json, overridden by the caller's.
        own = require_whole(path)
        # A machine choice in config.json is that of its writer; newer files contain none.
        given = {n: v for n, v in options.items() if n not in left_of_a_machine(path, options)}
        model = create_model(**{**own, **given}, pretrained=path)
        if not isinstance(model, cls):
            raise ValueError(
                f"{model_id} holds a {type(model).__name__}, expected a {cls.__name__}"
            )
        return model.to(map_location).eval()
