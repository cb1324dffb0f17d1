"""What differs between training scripts. In a script its own values stand in the place of this module."""

from __future__ import annotations

from typing import Any

TEACHER: str = ""
AUTO_CLASS: str = ""
TASK: dict[str, Any] = {}
TRAINING: dict[str, Any] = {}
DISTILLATION: dict[str, Any] = {}
EXPECTED: dict[str, Any] = {}
FILE_BYTES: int = 0
FILE_TENSORS: list[str] = []
MODEL_CONFIG: dict[str, Any] = {}
STUDENT: dict[str, Any] = {}
TEACHER_SHAPE: dict[str, Any] = {}
MODELING: str = ""
