"""The structures that the C++ engine's functions take: those of kernels/cpu/src/engine.h, field by field."""

from ctypes import Structure, c_double, c_float, c_int32, c_int64, c_uint64, c_void_p
from typing import Any

Fields = list[tuple[str, Any]]


def pointers(*names: str) -> Fields:
    return [(name, c_void_p) for name in names]


def sizes(*names: str) -> Fields:
    return [(name, c_int64) for name in names]


def flags(*names: str) -> Fields:
    return [(name, c_int32) for name in names]


class Images(Structure):
    _fields_ = [
        *pointers("pixels"),
        *sizes("count", "channels", "height", "width"),
        ("low", c_float),
        ("high", c_float),
    ]


class Dictionary(Structure):
    _fields_ = [*pointers("atoms", "norms", "dead_zone"), *sizes("count", "channels", "patch", "stride")]


class Draws(Structure):
    _fields_ = [
        *pointers("image_ids"),
        *sizes("seed", "start"),
        ("drop_below", c_uint64),
        *flags("quantize", "is_signed"),
    ]


class Selection(Structure):
    _fields_ = [*pointers("atom", "projection"), *sizes("images", "patches_h", "patches_w", "top_t")]


class Code(Structure):
    _fields_ = [
        *pointers("index", "value", "projection", "count"),
        *sizes("rows", "patches_h", "patches_w", "top_t"),
    ]


class Gradient(Structure):
    _fields_ = [
        *sizes("images", "height", "width"),
        *flags("surrogate", "quantize", "is_signed"),
        ("sigma", c_double),
    ]


class Membership(Structure):
    _fields_ = [
        *pointers("grad_code"),
        *sizes("patches_h", "patches_w", "top_t"),
        ("width", c_float),
        *flags("quantize", "is_signed"),
    ]


class Layer(Structure):
    _fields_ = [
        *pointers("weight", "bias"),
        *flags("dtype", "relu"),
        *sizes("atoms", "channels", "kernel_h", "kernel_w", "stride_h", "stride_w", "padding_h", "padding_w"),
        *sizes("height", "width"),
    ]


class Maps(Structure):
    _fields_ = [
        *pointers("data", "positive"),
        *flags("dtype"),
        *sizes("rows", "height", "width", "channels"),
    ]


class Filters(Structure):
    _fields_ = [
        *pointers("weight", "bias"),
        *sizes("inputs", "outputs", "padding"),
        *flags("flipped", "relu", "rounded"),
    ]


STRUCTURES = (Images, Dictionary, Draws, Selection, Code, Gradient, Membership, Layer, Maps, Filters)
