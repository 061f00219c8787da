"""A service as people write it for PaddleOCR: one object, and Flask's threads. It fails with PaddleOCR 2.7.3 (`make test-compat`).

With `from threadsafe_ocr.compat.paddle import PaddleOCR` instead of the line below this package reads.

    python flask_app.py PORT
"""

import sys

import cv2
import numpy as np
from flask import Flask, jsonify, request
from paddleocr import PaddleOCR

app = Flask(__name__)
ocr = PaddleOCR(use_angle_cls=True, lang="ch", show_log=False)


@app.post("/read")
def read():
    image = cv2.imdecode(np.frombuffer(request.data, np.uint8), cv2.IMREAD_COLOR)
    lines = ocr.ocr(image, cls=True)[0] or []
    return jsonify([text for _, (text, _) in lines])


if __name__ == "__main__":
    app.run(port=int(sys.argv[1]))
