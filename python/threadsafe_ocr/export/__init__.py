"""What becomes of read pages: one file a format, each with `write(pages, name)`, where name is the document's; `pdf` is by itself.

>>> from threadsafe_ocr import ThreadSafeOCR, export
>>> pages = list(ThreadSafeOCR().read_pages("page.png"))
>>> export.TEXTS["md"](pages)
'Hello, world\\n\\nTotal: 42.50\\n'
"""

from threadsafe_ocr.export import alto, hocr, markdown

# By the name of the format.
TEXTS = {"md": markdown.write, "hocr": hocr.write, "alto": alto.write}
