"""Django under waitress, in one file: settings, view, address, application."""

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path

from threadsafe_ocr import ThreadSafeOCR

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1", "localhost"], DATA_UPLOAD_MAX_MEMORY_SIZE=20_000_000)
ocr = ThreadSafeOCR()


def read(request):
    return JsonResponse(ocr.read(request.body).to_dict())


urlpatterns = [path("ocr", read)]
application = get_wsgi_application()
