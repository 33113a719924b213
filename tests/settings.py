"""Django settings of the tests; each test brings its own ``DJFS``."""

SECRET_KEY = "for tests only"
INSTALLED_APPS = ["djpyfs", "djpyfs_tasks"]
USE_TZ = True
