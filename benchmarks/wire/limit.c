// The limit: the least that a client of this kind can spend, written in C.
//
// N keep-alive connections in a closed loop for D seconds; each read is stamped and kept, nothing is parsed, and a reply
// ends where the bytes of the last HTTP chunk stand. What a Python driver costs above this is its own doing.
// --kernel stamps with SO_TIMESTAMPNS through recvmsg instead of reading the clock: the limit of that way of stamping.
//
// Connections and requests are made ready before the clock starts, and no request is sent after D; the replies that are
// in flight then are read to their end. Prints one line of JSON. --log keeps the stamps, to be joined to the server's
// log by request id ("l<number>") exactly as those of any other client.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { KEEP = 1 << 16, EVENTS = 1024 };

// The log, as it lies on disk: head, then sent[requests], then reads[reads] (little endian; peers.py reads it).
typedef struct {
    char magic[8];
    uint64_t requests, reads;
} LogHead;
typedef struct {
    uint32_t request, bytes;
    int64_t stamp_ns;
} Read;
typedef struct {
    int fd;
    uint32_t request;
    int len;
    char kept[KEEP];
} Stream;

static struct {
    int port, streams, kernel;
    double seconds;
    size_t reads_max;
    const char *log;
} option = {.streams = 64, .seconds = 10, .reads_max = 4000000};

static Stream *streams;
static Read *reads;
static int64_t *sent;
static size_t request_count, read_count, ended, requests_max;
static int64_t wall_minus_monotonic;

static int64_t read_clock(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t now_ns(void) { return read_clock(CLOCK_MONOTONIC); }

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void send_request(Stream *s) {
    static const char body[] = "{\"model\":\"schedule\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"the\"}]}";
    char out[512];
    if (request_count == requests_max) { fprintf(stderr, "limit: more requests than fit\n"); exit(1); }
    s->request = request_count;
    s->len = 0;
    int n = sprintf(out, "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx-request-id: l%u\r\ncontent-type: application/json\r\n"
                    "content-length: %zu\r\n\r\n%s", s->request, sizeof body - 1, body);
    sent[request_count++] = now_ns();
    if (send(s->fd, out, n, MSG_NOSIGNAL) != n) fail("send");
}

static int receive(Stream *s, int64_t *stamp) {
    if (!option.kernel) {
        *stamp = now_ns();
        return recv(s->fd, s->kept + s->len, KEEP - s->len, 0);
    }
    char control[64];
    struct iovec part = {s->kept + s->len, KEEP - s->len};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    int n = recvmsg(s->fd, &message, 0);
    struct cmsghdr *head = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    struct timespec t;
    if (!head) {
        *stamp = now_ns();
        return n;
    }
    memcpy(&t, CMSG_DATA(head), sizeof t);
    *stamp = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec - wall_minus_monotonic;
    return n;
}

static int hear(Stream *s) {  // whether the reply has ended
    int64_t stamp;
    int n = receive(s, &stamp);
    if (n <= 0) {
        if (n < 0 && errno == EAGAIN) return 0;
        fail("the server hung up");
    }
    if (read_count < option.reads_max) reads[read_count] = (Read){s->request, n, stamp};
    read_count++;
    s->len += n;
    return s->len >= 5 && !memcmp(s->kept + s->len - 5, "0\r\n\r\n", 5);
}

static void connect_all(int epoll) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(option.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (int i = 0, one = 1; i < option.streams; i++) {
        int fd = streams[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd < 0 || connect(fd, (void *)&at, sizeof at)) fail("connect");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (option.kernel) setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one);
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

static void run(int epoll, int64_t end) {
    struct epoll_event events[EVENTS];
    for (int i = 0; i < option.streams; i++) send_request(&streams[i]);
    for (int live = option.streams; live;) {
        int n = epoll_wait(epoll, events, EVENTS, 5000);
        if (n <= 0) { fprintf(stderr, "limit: no byte for 5 s\n"); exit(1); }
        for (int i = 0; i < n; i++) {
            Stream *s = &streams[events[i].data.u32];
            if (!hear(s)) continue;
            ended++;
            if (now_ns() < end) send_request(s);
            else live--;
        }
    }
}

static void save(void) {
    if (!option.log) return;
    LogHead head = {"IFLIMIT1", request_count, read_count < option.reads_max ? read_count : option.reads_max};
    FILE *file = fopen(option.log, "wb");
    if (!file || fwrite(&head, sizeof head, 1, file) != 1 || fwrite(sent, sizeof *sent, head.requests, file) != head.requests ||
        fwrite(reads, sizeof *reads, head.reads, file) != head.reads || fclose(file)) fail(option.log);
}

static int read_options(int argc, char **argv) {
    static const struct option names[] = {{"port", 1, 0, 'p'}, {"streams", 1, 0, 'n'}, {"seconds", 1, 0, 'd'},
                                          {"kernel", 0, 0, 'k'}, {"reads-max", 1, 0, 'r'}, {"log", 1, 0, 'o'}, {0}};
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) switch (c) {
        case 'p': option.port = atoi(optarg); break;
        case 'n': option.streams = atoi(optarg); break;
        case 'd': option.seconds = atof(optarg); break;
        case 'k': option.kernel = 1; break;
        case 'r': option.reads_max = strtoull(optarg, NULL, 10); break;
        case 'o': option.log = optarg; break;
        default: return 0;
    }
    return optind == argc && option.port > 0 && option.streams > 0;
}

static void *touched(size_t count, size_t size) {
    void *memory = malloc(count * size);
    if (!memory) fail("limit");
    return memset(memory, 1, count * size);
}

int main(int argc, char **argv) {
    if (!read_options(argc, argv)) {
        fprintf(stderr, "usage: limit --port N [--streams N] [--seconds X] [--kernel] [--reads-max N] [--log FILE]\n");
        return 2;
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    requests_max = option.reads_max / 4 + option.streams;
    streams = touched(option.streams, sizeof *streams);
    reads = touched(option.reads_max, sizeof *reads);
    sent = touched(requests_max, sizeof *sent);
    wall_minus_monotonic = read_clock(CLOCK_REALTIME) - now_ns();
    int epoll = epoll_create1(0);
    connect_all(epoll);
    int64_t start = now_ns(), cpu = read_clock(CLOCK_PROCESS_CPUTIME_ID);
    run(epoll, start + (int64_t)(option.seconds * 1e9));
    double wall_s = (now_ns() - start) / 1e9, cpu_s = (read_clock(CLOCK_PROCESS_CPUTIME_ID) - cpu) / 1e9;
    printf("{\"requests\": %zu, \"reads\": %zu, \"wall_s\": %.3f, \"cpu_s\": %.4f}\n", ended, read_count, wall_s, cpu_s);
    save();
    return 0;
}
