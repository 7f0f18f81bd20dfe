// Loaded before all else (LD_PRELOAD), it writes down each name that is looked up, connection and process that begins.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void note(const char *what, const char *which) {
    char line[256];
    const int length = snprintf(line, sizeof line, "%s %s\n", what, which ? which : "");
    const int file = open(getenv("WATCHED"), O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (file >= 0 && write(file, line, length) < length) abort();
    if (file >= 0) close(file);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    note("getaddrinfo", node);
    return NEXT(getaddrinfo)(node, service, hints, found);
}

struct hostent *gethostbyname(const char *name) {
    note("gethostbyname", name);
    return NEXT(gethostbyname)(name);
}

int connect(int socket, const struct sockaddr *address, socklen_t length) {
    note("connect", address->sa_family == AF_UNIX ? "unix" : "inet");
    return NEXT(connect)(socket, address, length);
}

pid_t fork(void) {
    note("fork", "");
    return NEXT(fork)();
}

int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *how,
                char *const arguments[], char *const environment[]) {
    note("posix_spawn", path);
    return NEXT(posix_spawn)(pid, path, actions, how, arguments, environment);
}

int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *how,
                 char *const arguments[], char *const environment[]) {
    note("posix_spawnp", file);
    return NEXT(posix_spawnp)(pid, file, actions, how, arguments, environment);
}

int execve(const char *path, char *const arguments[], char *const environment[]) {
    note("execve", path);
    return NEXT(execve)(path, arguments, environment);
}

int system(const char *command) {
    note("system", command);
    return NEXT(system)(command);
}

FILE *popen(const char *command, const char *mode) {
    note("popen", command);
    return NEXT(popen)(command, mode);
}
