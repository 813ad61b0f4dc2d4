"""Trained models as files for other runtimes: ONNX, torch.export, AOTInductor.

    from swin_umamba.export.onnx_file import export_onnx
    from swin_umamba.inference.onnx_network import OnnxNetwork
    from swin_umamba.export.torch_file import export_aot, export_pt2

Each needs packages of its own, so nothing is imported here.
"""
