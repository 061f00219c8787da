# The service in a container: `make wheel && docker build -t threadsafe-ocr .`
# The model is inside the wheel; nothing is downloaded when it starts.
FROM python:3.13-slim

RUN --mount=type=bind,source=dist,target=/dist \
    pip install --no-cache-dir "$(echo /dist/threadsafe_ocr-*.whl)[serve]"

RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin ocr
USER 10001

EXPOSE 8000
# A service that does not listen yet, or no longer, is unhealthy; urllib is there, curl is not.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]

# exec form: SIGTERM reaches the service.
ENTRYPOINT ["threadsafe-ocr", "serve", "--host", "0.0.0.0", "--port", "8000"]
