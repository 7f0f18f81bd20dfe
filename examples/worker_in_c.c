/* Roads from C: a client of dlink's worker, which computes in a process of its own.

   cc -O2 -Wall -Wextra -o worker_in_c worker_in_c.c
   python -m dlink.live.worker roads.onnx --socket /tmp/roads.sock &
   ./worker_in_c /tmp/roads.sock picture.ppm roads.pgm 8

   picture.ppm is a binary PPM of 8 bits (P6, red, green, blue). roads.pgm gets the probability of road in 255 steps. The last
   argument is the number of views: 8, 4, 1, or 0 for adaptive views. The worker computes pictures as they come: scale them
   first to the metres a pixel that the network was trained at, which the worker's first message has (spec, gsd_m).
   live/wire.py describes the messages; they are little endian, as this computer must be. Linux. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#pragma pack(push, 1)
struct request {
    char mark[4];
    uint32_t kind;
    uint64_t id;
    uint32_t height, width, channels, views;
    uint64_t size;
};
struct reply {
    char mark[4];
    uint32_t status;
    uint64_t id;
    double seconds, views, doubtful;
    uint64_t length;
};
#pragma pack(pop)
_Static_assert(sizeof(struct request) == 40 && sizeof(struct reply) == 48, "the layout of live/wire.py");

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void refuse(const char *what) {
    fprintf(stderr, "Error: %s\n", what);
    exit(1);
}

static void receive(int link, void *to, size_t size) {
    for (char *at = to; size;) {
        ssize_t got = recv(link, at, size, 0);
        if (got < 0)
            fail("recv");
        if (got == 0)
            refuse("the worker ended; start it again");
        at += got;
        size -= (size_t)got;
    }
}

/* The next reply; its text is an error, or what the worker says of its model. Free it. */
static char *text_of(int link, struct reply *reply) {
    receive(link, reply, sizeof *reply);
    if (memcmp(reply->mark, "DLK1", 4) || reply->length > 1 << 20)
        refuse("the worker is of another version");
    char *text = calloc(1, reply->length + 1);
    if (!text)
        fail("calloc");
    receive(link, text, reply->length);
    return text;
}

/* Send a request, with a file descriptor where it is not -1. */
static void ask(int link, struct request request, int fd) {
    memcpy(request.mark, "DLK1", 4);
    struct iovec part = {&request, sizeof request};
    union {
        char bytes[CMSG_SPACE(sizeof fd)];
        struct cmsghdr aligned;
    } control = {{0}};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd != -1) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(header), &fd, sizeof fd);
    }
    if (sendmsg(link, &message, MSG_NOSIGNAL) != (ssize_t)sizeof request)
        fail("sendmsg");
}

int main(int argc, char **argv) {
    if (argc != 5)
        refuse("usage: worker_in_c SOCKET PICTURE.ppm ROADS.pgm VIEWS");
    char *end;
    uint32_t views = (uint32_t)strtoul(argv[4], &end, 10);
    if (!*argv[4] || *end)
        refuse("VIEWS is 8, 4, 1, or 0 for adaptive views");
    FILE *picture = fopen(argv[2], "rb");
    if (!picture)
        fail(argv[2]);
    uint32_t width, height, most;
    if (fscanf(picture, "P6 %u %u %u", &width, &height, &most) != 3 || fgetc(picture) == EOF || most != 255 || !width ||
        !height || width > 1 << 16 || height > 1 << 16)
        refuse("the picture is not a binary PPM of 8 bits");

    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(argv[1]) >= sizeof address.sun_path)
        refuse("the socket's path is too long");
    strcpy(address.sun_path, argv[1]);
    int link = socket(AF_UNIX, SOCK_STREAM, 0);
    if (link < 0 || connect(link, (struct sockaddr *)&address, sizeof address))
        fail(argv[1]);
    struct reply reply;
    char *text = text_of(link, &reply);
    if (reply.status)
        refuse(text);
    free(text);

    size_t pixels = (size_t)width * height, begin = (3 * pixels + 63) / 64 * 64, size = begin + pixels;
    int memory = memfd_create("roads", MFD_CLOEXEC);
    if (memory < 0 || ftruncate(memory, (off_t)size))
        fail("memory");
    unsigned char *shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    if (shared == MAP_FAILED)
        fail("mmap");
    if (fread(shared, 3, pixels, picture) != pixels)
        refuse("the picture is cut off");
    fclose(picture);

    ask(link, (struct request){.kind = 1, .size = size}, memory);
    ask(link, (struct request){.kind = 2, .id = 1, .height = height, .width = width, .channels = 3,
                               .views = views}, -1);
    text = text_of(link, &reply);
    if (reply.status)
        refuse(text);
    free(text);
    fprintf(stderr, "%.0f views, %.1f ms\n", reply.views, 1000 * reply.seconds);

    FILE *roads = fopen(argv[3], "wb");
    if (!roads || fprintf(roads, "P5\n%u %u\n255\n", width, height) < 0 || fwrite(shared + begin, 1, pixels, roads) != pixels ||
        fclose(roads))
        fail(argv[3]);
    close(link);
    return 0;
}
