"""The descriptors of voxelize and devoxelize in robocache.h, for ctypes."""

from __future__ import annotations

import ctypes

I32, I64, DOUBLE, POINTER = ctypes.c_int32, ctypes.c_int64, ctypes.c_double, ctypes.c_void_p


class PointCloud(ctypes.Structure):
    _fields_ = [
        ("points", POINTER),
        ("points_stride", I64 * 3),
        ("row_splits", POINTER),
        ("num_points", I64),
        ("dtype", I32),
        ("reserved", I32),
    ]


class DepthImages(ctypes.Structure):
    _fields_ = [
        ("depth", POINTER),
        ("depth_stride", I64 * 3),
        ("intrinsics", POINTER),
        ("intrinsics_stride", I64 * 2),
        ("num_cameras", I64),
        ("height", I64),
        ("width", I64),
        ("depth_scale", DOUBLE),
        ("dtype", I32),
        ("reserved", I32),
    ]


class PointFeatures(ctypes.Structure):
    _fields_ = [
        ("values", POINTER),
        ("stride", I64 * 4),
        ("num_columns", I64),
        ("dtype", I32),
        ("reserved", I32),
    ]


class VoxelGrid(ctypes.Structure):
    _fields_ = [
        ("size", I64 * 3),
        ("voxel_size", DOUBLE * 3),
        ("grid_min", DOUBLE * 3),
        ("voxel_sizes", POINTER),
        ("grid_mins", POINTER),
        ("voxel_sizes_stride", I64),
        ("grid_mins_stride", I64),
    ]


class VoxelOutput(ctypes.Structure):
    _fields_ = [("data", POINTER), ("reduce", I32), ("dtype", I32)]


class VoxelCall(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("bounds", I32),
        ("cloud", ctypes.POINTER(PointCloud)),
        ("depth", ctypes.POINTER(DepthImages)),
        ("batch", I64),
        ("mask", POINTER),
        ("mask_stride", I64 * 3),
        ("poses", POINTER),
        ("poses_stride", I64 * 2),
        ("features", ctypes.POINTER(PointFeatures)),
        ("grid", VoxelGrid),
        ("empty_value", DOUBLE),
        ("outputs", ctypes.POINTER(VoxelOutput)),
        ("num_outputs", I32),
        ("channels_first", ctypes.c_bool),
        ("accumulate", ctypes.c_bool),
        ("dropped", POINTER),
        ("inverse", POINTER),
        ("parallel_for", POINTER),
        ("pool", POINTER),
        ("device", I32),
        ("reserved", I32),
        ("cuda_stream", POINTER),
        ("workspace", POINTER),
        ("workspace_size", ctypes.c_size_t),
    ]


class SparseCall(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("order", I32),
        ("call", ctypes.POINTER(VoxelCall)),
        ("max_voxels", I64),
        ("coords", POINTER),
        ("num_voxels", POINTER),
        ("max_points", I64),
        ("gathered", POINTER),
        ("slots", POINTER),
        ("gathered_dtype", I32),
        ("reserved", I32),
    ]


class DevoxelizeCall(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("mode", I32),
        ("bounds", I32),
        ("value_dtype", I32),
        ("cloud", ctypes.POINTER(PointCloud)),
        ("batch", I64),
        ("mask", POINTER),
        ("mask_stride", I64 * 2),
        ("poses", POINTER),
        ("poses_stride", I64),
        ("grid", VoxelGrid),
        ("values", POINTER),
        ("values_stride", I64 * 5),
        ("num_columns", I64),
        ("empty_value", DOUBLE),
        ("out", POINTER),
        ("out_dtype", I32),
        ("device", I32),
        ("parallel_for", POINTER),
        ("pool", POINTER),
        ("cuda_stream", POINTER),
    ]
