"""Known faults, put into a capture to train and to measure what finds them."""

from mtcm_nerfstudio.capture.corruptions.image import ImageFaultKind, apply_image_fault, foreign_image
from mtcm_nerfstudio.capture.corruptions.inject import faulty_image, foreign_frame, inject, read_truth
from mtcm_nerfstudio.capture.corruptions.plan import (
    FAULT_KINDS,
    IMAGE_FAULTS,
    POSE_FAULTS,
    REASON_OF,
    Fault,
    FaultKind,
    FaultReason,
    faulted_poses,
    plan_faults,
)
from mtcm_nerfstudio.capture.corruptions.pose import PoseFaultKind, apply_pose_fault, spread, turned_and_shifted

__all__ = [
    "FAULT_KINDS",
    "IMAGE_FAULTS",
    "POSE_FAULTS",
    "REASON_OF",
    "Fault",
    "FaultKind",
    "FaultReason",
    "ImageFaultKind",
    "PoseFaultKind",
    "apply_image_fault",
    "apply_pose_fault",
    "faulted_poses",
    "faulty_image",
    "foreign_frame",
    "foreign_image",
    "inject",
    "plan_faults",
    "read_truth",
    "spread",
    "turned_and_shifted",
]
