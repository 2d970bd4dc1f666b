"""Lets PyPI's torchvision be imported beside a torch for CPUs. Python runs this at its start, if it is on its path.

PyPI's torchvision for Linux is built for CUDA. Beside a torch for CPUs its operators cannot be loaded, and its import
ends with "operator torchvision::nms does not exist", although vLLM uses none of them. Where they are missing, their
names are declared. With both from PyTorch's index for CPUs this does nothing.
"""

import sys
from importlib.abc import MetaPathFinder

_kept = []  # a declaration ends with the object that made it


class _BeforeOperators(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision._meta_registrations":
            sys.meta_path.remove(self)
            if not sys.modules["torchvision.extension"]._has_ops():
                from torch.library import Library

                _kept.append(Library("torchvision", "FRAGMENT"))
                for operator in ("nms", "qnms"):
                    _kept[0].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


sys.meta_path.insert(0, _BeforeOperators())
