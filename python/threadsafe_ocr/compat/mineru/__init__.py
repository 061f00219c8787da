"""MinerU's OCR on this engine, for magic-pdf 1.x and mineru 2 to 4: `threadsafe_ocr.patch_mineru()`."""
