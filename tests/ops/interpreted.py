"""Test files run once more with Triton's interpreter, which reads its variable when imported."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any


def run_interpreted(*files: str) -> None:
    """Run the tests of files of this folder in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *files],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def spare_the_interpreter() -> None:
    """Leave out what takes most of Triton's interpreter's time and finds nothing here.

    A launch replaces Triton's language by NumPy, and each call of a function in a kernel does so
    again, with the same outcome. Sums and products of integers are checked for overflow, which
    tensors of a few thousand values are too small for. The few types of blocks are derived
    again for each operation.
    """
    from triton.runtime import interpreter

    patch, launch = interpreter._patch_lang, interpreter.GridExecutor.__call__
    patched: set[int] = set()

    def patched_once(function: Any) -> Any:
        module = id(function.__globals__)
        if module in patched:
            return None
        patched.add(module)
        return patch(function)

    def launched(self: Any, *args: Any, **options: Any) -> None:
        patched.clear()
        launch(self, *args, **options)

    interpreter._patch_lang = patched_once
    interpreter.GridExecutor.__call__ = launched
    builder = interpreter.interpreter_builder
    builder.options = replace(builder.options, sanitize_overflow=False)
    _derive_types_once()


def _derive_types_once() -> None:
    from triton.language import core, semantic

    of_block, of_tensor = core.block_type.__init__, core.tensor.__init__
    broadcast = semantic.TritonSemantic.broadcast_impl_value
    blocks: dict[Any, dict[str, Any]] = {}
    shapes: dict[tuple[int, ...], tuple[Any, Any]] = {}

    def block_init(self: Any, element_ty: Any, shape: Any) -> None:
        key = (element_ty.name, *(getattr(size, "value", size) for size in shape))
        if key not in blocks:
            of_block(self, element_ty, shape)
            blocks[key] = dict(self.__dict__)
        self.__dict__.update(blocks[key], element_ty=element_ty)

    def tensor_init(self: Any, handle: Any, type: Any) -> None:
        key = tuple(type.shape) if type.is_block() else ()
        if key not in shapes:
            of_tensor(self, handle, type)
            shapes[key] = self.shape, self.numel
        self.handle, self.type, self.dtype = handle, type, type.scalar
        self.shape, self.numel = shapes[key]

    def broadcast_if_needed(self: Any, lhs: Any, rhs: Any) -> Any:
        blocks = lhs.type.is_block() and rhs.type.is_block()
        if blocks and tuple(lhs.type.shape) == tuple(rhs.type.shape):
            return lhs, rhs
        return broadcast(self, lhs, rhs)

    core.block_type.__init__ = block_init
    core.tensor.__init__ = tensor_init
    semantic.TritonSemantic.broadcast_impl_value = broadcast_if_needed
