"""Plain torch implementations, on any device: what the native kernels are compared with."""
