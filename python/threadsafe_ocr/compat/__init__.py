"""Classes with the interfaces of other OCR packages, on the engine of this one."""
