/* Preloaded, it lets each unlink take a millisecond longer, as on a disk behind a network. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

static void wait_for_the_network(void) {
    struct timespec millisecond = {0, 1000000};
    nanosleep(&millisecond, 0);
}

int unlink(const char *path) {
    int (*original)(const char *) = (int (*)(const char *)) dlsym(RTLD_NEXT, "unlink");
    wait_for_the_network();
    return original(path);
}

int unlinkat(int directory, const char *path, int flags) {
    int (*original)(int, const char *, int) =
        (int (*)(int, const char *, int)) dlsym(RTLD_NEXT, "unlinkat");
    wait_for_the_network();
    return original(directory, path, flags);
}
