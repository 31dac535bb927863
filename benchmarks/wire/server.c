// A calibrated streaming server: plays one fixed token schedule to every client, and knows what it did.
//
// It speaks just enough HTTP/1.1 for the OpenAI streaming API that any benchmark client can drive it, and looks like
// vLLM on the wire: chunked SSE, one HTTP chunk per event, a role event in front of the first token, usage in an event
// of its own where asked for, [DONE]. The first token of a request is due TTFT after its arrival, each later one a gap
// after the one before; every request's schedule is shifted by a random part of a gap, so that the streams of many
// clients are spread over time as those of many servers would be (--lockstep: all tokens fall on one grid instead, as
// those of one batched engine do).
//
// The truth it keeps: for each request when its last byte had been read, for each token when it was due and when it
// was written (CLOCK_MONOTONIC, read immediately before send(); Python's time.monotonic_ns and perf_counter_ns read
// the same clock). The log is one preallocated array, touched in advance, and reaches the disk only at exit.
// It also judges itself: on exit it prints how late its own writes were, so that a run in which the server was the
// slow part can be thrown away.
//
// Rules: one thread, one epoll set, one heap of due tokens. Nothing is formatted per token: a request's event is
// rendered once. A client that does not read (a short send) is cut off and counted, never waited for.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
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
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { ID = 64, FRAME = 768, FDS = 1 << 16, HEAP = 1 << 18, INPUT_MAX = 16 << 20, EVENTS = 1024 };

// --- the log, as it lies on disk (little endian; stage.py reads it) ------------------------------------------------

typedef struct {
    char magic[8];
    uint64_t requests, writes;
} LogHead;
typedef struct {
    char id[ID];  // X-Request-Id, or "s<serial>" where the client sent none; also in the reply's "id"
    int64_t received_ns;
    uint32_t port, serial;  // the client's port; serial counts all requests in order of arrival
} Request;
typedef struct {
    uint32_t request, token;
    int64_t due_ns, wrote_ns;
} Write;

// --- state ----------------------------------------------------------------------------------------------------------

typedef struct {
    int fd, playing, greeted, closing;
    int chat, stream, usage, continuous;
    uint32_t generation, request, token, port;
    int64_t start_ns;
    char frame[FRAME];  // the event of a middle token, rendered once per request
    int frame_len, count_at;  // count_at: where the running token count stands, or 0
    char *in;
    int in_len, in_cap;
} Conn;
typedef struct {
    int64_t due_ns;
    int fd;
    uint32_t generation;
} Due;

static struct {
    int port, tokens, lockstep;
    int64_t ttft_ns, gap_ns, spin_ns;
    size_t log_writes, log_requests;
    const char *log;
} option = {.tokens = 128, .ttft_ns = 100000000, .gap_ns = 20000000, .log_writes = 4000000, .log_requests = 400000};

static Conn *conns[FDS];
static Due heap[HEAP];
static int heap_len;
static Request *requests;
static Write *writes;
static size_t request_count, write_count, replies, cut_off, unlogged;
static uint64_t random_state = 88172645463325252ull;
static volatile sig_atomic_t stopping;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static uint64_t random_bits(void) {  // xorshift64
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static void heap_push(Due x) {
    if (heap_len == HEAP) { fprintf(stderr, "server: too many tokens due at once\n"); exit(1); }
    int i = heap_len++;
    for (int parent; i && heap[parent = (i - 1) / 2].due_ns > x.due_ns; i = parent) heap[i] = heap[parent];
    heap[i] = x;
}

static Due heap_pop(void) {
    Due top = heap[0], x = heap[--heap_len];
    int i = 0;
    for (int child; (child = 2 * i + 1) < heap_len; i = child) {
        if (child + 1 < heap_len && heap[child + 1].due_ns < heap[child].due_ns) child++;
        if (heap[child].due_ns >= x.due_ns) break;
        heap[i] = heap[child];
    }
    heap[i] = x;
    return top;
}

// --- what is said ---------------------------------------------------------------------------------------------------

// Appends one SSE event as one HTTP chunk, and returns its length; the size line has three fixed hex digits.
static int put_event(char *out, const char *json) {
    int n = sprintf(out, "000\r\ndata: %s\n\n\r\n", json);
    char size[4];
    sprintf(size, "%03x", n - 7);
    memcpy(out, size, 3);
    return n;
}

// One delta of the reply. The running count, where asked for, is padded with blanks (legal JSON), to be overwritten.
static int put_delta(char *out, const Conn *c, const char *delta, const char *finish, int count, int *count_at) {
    char json[FRAME], usage[128] = "";
    if (c->continuous)
        sprintf(usage, ",\"usage\":{\"prompt_tokens\":10,\"total_tokens\":%6d,\"completion_tokens\":%6d}", count + 10, count);
    if (c->chat)
        sprintf(json, "{\"id\":\"chatcmpl-%s\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"schedule\","
                "\"choices\":[{\"index\":0,\"delta\":{%s},\"logprobs\":null,\"finish_reason\":%s,\"token_ids\":null}]%s}",
                requests[c->request].id, delta, finish, usage);
    else
        sprintf(json, "{\"id\":\"cmpl-%s\",\"object\":\"text_completion\",\"created\":1700000000,\"model\":\"schedule\","
                "\"choices\":[{\"index\":0,\"text\":\" the\",\"logprobs\":null,\"finish_reason\":%s,\"stop_reason\":null}]%s}",
                requests[c->request].id, finish, usage);
    int n = put_event(out, json);
    if (count_at) *count_at = c->continuous ? n - 4 - 2 - 6 : 0;  // before "}}\n\n\r\n"
    return n;
}

static const char CONTENT[] = "\"content\":\" the\"";

static int put_first(char *out, const Conn *c) {
    int n = sprintf(out, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n%stransfer-encoding: chunked\r\n\r\n",
                    c->closing ? "connection: close\r\n" : "");
    if (c->chat) n += put_delta(out + n, c, "\"role\":\"assistant\",\"content\":\"\"", "null", 0, NULL);
    return n;
}

static int put_end(char *out, const Conn *c) {
    int n = 0;
    if (c->usage) {
        char json[FRAME];
        sprintf(json, "{\"id\":\"%s%s\",\"object\":\"%s\",\"created\":1700000000,\"model\":\"schedule\",\"choices\":[],"
                "\"usage\":{\"prompt_tokens\":10,\"total_tokens\":%d,\"completion_tokens\":%d}}",
                c->chat ? "chatcmpl-" : "cmpl-", requests[c->request].id,
                c->chat ? "chat.completion.chunk" : "text_completion", option.tokens + 10, option.tokens);
        n += put_event(out, json);
    }
    n += put_event(out + n, "[DONE]");
    return n + sprintf(out + n, "0\r\n\r\n");
}

static int put_plain(char *out, int status, const char *json) {
    return sprintf(out, "HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s", status,
                   status == 200 ? "OK" : "Error", strlen(json), json);
}

static int put_whole_reply(char *out, const Conn *c) {  // for a request that did not ask for a stream
    char json[FRAME];
    sprintf(json, "{\"id\":\"chatcmpl-%s\",\"object\":\"%s\",\"created\":1700000000,\"model\":\"schedule\",\"choices\":[{\"index\":0,"
            "%s,\"finish_reason\":\"length\"}],\"usage\":{\"prompt_tokens\":10,\"total_tokens\":%d,\"completion_tokens\":%d}}",
            requests[c->request].id, c->chat ? "chat.completion" : "text_completion",
            c->chat ? "\"message\":{\"role\":\"assistant\",\"content\":\" the\"}" : "\"text\":\" the\"",
            option.tokens + 10, option.tokens);
    return put_plain(out, 200, json);
}

// --- playing the schedule -------------------------------------------------------------------------------------------

static void hang_up(Conn *c) {
    close(c->fd);
    free(c->in);
    c->in = NULL;
    c->in_len = c->in_cap = 0;
    c->playing = 0;
    c->fd = -1;
}

static int say(Conn *c, const char *bytes, int n) {
    if (send(c->fd, bytes, n, MSG_NOSIGNAL) == n) return 1;
    cut_off++;
    hang_up(c);
    return 0;
}

static int64_t due_ns(const Conn *c) { return c->start_ns + option.ttft_ns + (int64_t)c->token * option.gap_ns; }

static void note(const Conn *c, int64_t due, int64_t wrote) {
    if (write_count < option.log_writes) writes[write_count++] = (Write){c->request, c->token, due, wrote};
    else unlogged++;
}

static int take_request(Conn *c);

static void advance(Conn *c) {
    if (++c->token < (uint32_t)option.tokens && c->stream) {
        heap_push((Due){due_ns(c), c->fd, c->generation});
        return;
    }
    replies++;
    c->playing = 0;
    if (c->closing) hang_up(c);
    else while (take_request(c)) {}  // one that was sent ahead
}

static int last_token(const Conn *c) { return c->token == (uint32_t)option.tokens - 1; }

static void write_edge(Conn *c, int64_t due) {  // the first token, the last one, or a whole reply
    char out[4 * FRAME];
    int n = 0;
    if (!c->stream) n = put_whole_reply(out, c);
    else {
        if (c->token == 0) n += put_first(out, c);
        n += put_delta(out + n, c, CONTENT, last_token(c) ? "\"length\"" : "null", c->token + 1, NULL);
        if (last_token(c)) n += put_end(out + n, c);
    }
    int64_t wrote = now_ns();
    if (!say(c, out, n)) return;
    note(c, due, wrote);
    advance(c);
}

static void write_middle(Conn *c, int64_t due) {
    if (c->count_at) {
        char count[8];
        sprintf(count, "%6u", c->token + 1);
        memcpy(c->frame + c->count_at, count, 6);
        sprintf(count, "%6u", c->token + 11);
        memcpy(c->frame + c->count_at - 27, count, 6);  // total_tokens, in front of ,"completion_tokens":
    }
    int64_t wrote = now_ns();
    if (!say(c, c->frame, c->frame_len)) return;
    note(c, due, wrote);
    advance(c);
}

static void play(Due d) {
    Conn *c = conns[d.fd];
    if (c->fd < 0 || !c->playing || c->generation != d.generation) return;  // the client has left
    if (c->token == 0 || last_token(c) || !c->stream) write_edge(c, d.due_ns);
    else write_middle(c, d.due_ns);
}

// --- requests -------------------------------------------------------------------------------------------------------

// The value of a header within head[0:n], its length in *len; NULL where there is none.
static const char *header(const char *head, int n, const char *name, int *len) {
    size_t width = strlen(name);
    for (const char *line = memchr(head, '\n', n), *end = head + n; line && line + 1 < end; line = memchr(line + 1, '\n', end - line - 1)) {
        if ((size_t)(end - line) <= width + 1 || strncasecmp(line + 1, name, width) || line[1 + width] != ':') continue;
        const char *value = line + 2 + width;
        while (value < end && (*value == ' ' || *value == '\t')) value++;
        const char *stop = value;
        while (stop < end && *stop != '\r' && *stop != '\n') stop++;
        *len = stop - value;
        return value;
    }
    return NULL;
}

// Whether `"key" : true` stands in the body: a scan, not a parser; no client writes these keys in any other place.
static int is_true(const char *body, int n, const char *key) {
    const char *at = memmem(body, n, key, strlen(key));
    if (!at) return 0;
    for (at += strlen(key); at < body + n && (*at == ':' || isspace((unsigned char)*at)); at++) {}
    return body + n - at >= 4 && !memcmp(at, "true", 4);
}

// Packs a chunked body in place. Returns the bytes it took on the wire (0: not all there yet, -1: malformed).
static int unchunk(char *body, int n, int *packed) {
    for (int pass = 0, at, out; pass < 2; pass++)
        for (at = out = 0;;) {
            char *line = memmem(body + at, n - at, "\r\n", 2);
            if (!line) return 0;
            char *digits_end;
            long size = strtol(body + at, &digits_end, 16);
            if (size < 0 || size > INPUT_MAX || digits_end == body + at) return -1;
            int data = line + 2 - body;
            if (data + size + 2 > n) return 0;
            if (pass && size) memmove(body + out, body + data, size);
            out += size;
            at = data + size + 2;
            if (size) continue;
            if (pass == 0) break;
            *packed = out;
            return at;
        }
    return -1;
}

static void take_id(const Conn *c, Request *r, const char *head, int n) {
    int len = 0, kept = 0;
    memset(r->id, 0, ID);
    const char *id = header(head, n, "x-request-id", &len);
    for (int i = 0; i < len && kept < ID - 1; i++)
        if (isalnum((unsigned char)id[i]) || strchr("-_.:", id[i])) r->id[kept++] = id[i];
    if (!kept) sprintf(r->id, "s%u", r->serial);
    r->port = c->port;
}

static void generate(Conn *c, const char *head, int head_len, const char *body, int body_len) {
    if (request_count == option.log_requests) { fprintf(stderr, "server: more requests than --requests-max\n"); exit(1); }
    int64_t received = now_ns();
    c->request = request_count++;
    Request *r = &requests[c->request];
    r->serial = c->request;
    r->received_ns = received;
    take_id(c, r, head, head_len);
    c->stream = is_true(body, body_len, "\"stream\"");
    c->usage = is_true(body, body_len, "\"include_usage\"");
    c->continuous = is_true(body, body_len, "\"continuous_usage_stats\"");
    c->frame_len = put_delta(c->frame, c, CONTENT, "null", 0, &c->count_at);
    c->generation++;
    c->token = 0;
    c->playing = 1;
    int64_t gap = option.gap_ns > 0 ? option.gap_ns : 1;
    c->start_ns = received + (option.lockstep ? gap - (received + option.ttft_ns) % gap : (int64_t)(random_bits() % gap));
    heap_push((Due){due_ns(c), c->fd, c->generation});
}

static void answer(Conn *c, const char *head, int head_len, const char *body, int body_len) {
    char out[1024];
    const char *path = memchr(head, ' ', head_len), *line_end = memchr(head, '\r', head_len);
    int path_len = path && line_end ? line_end - path : 0, len;
    const char *connection = header(head, head_len, "connection", &len);
    c->closing = connection && len == 5 && !strncasecmp(connection, "close", 5);
    c->chat = path_len && memmem(path, path_len, "/chat/completions", 17) != NULL;
    int n;
    if (!memcmp(head, "POST", 4) && path_len && memmem(path, path_len, "/completions", 12)) {
        generate(c, head, head_len, body, body_len);
        return;
    }
    if (path_len && memmem(path, path_len, "/models", 7))
        n = put_plain(out, 200, "{\"object\":\"list\",\"data\":[{\"id\":\"schedule\",\"object\":\"model\",\"created\":1700000000,"
                      "\"owned_by\":\"benchmark\",\"root\":\"schedule\",\"max_model_len\":131072}]}");
    else if (path_len && (memmem(path, path_len, "/health", 7) || memmem(path, path_len, " / ", 3))) n = put_plain(out, 200, "{}");
    else if (path_len && memmem(path, path_len, "/version", 8)) n = put_plain(out, 200, "{\"version\":\"1\"}");
    else n = put_plain(out, 404, "{\"error\":{\"message\":\"no such path\",\"type\":\"NotFoundError\",\"code\":404}}");
    if (!memcmp(head, "HEAD", 4)) n = strstr(out, "\r\n\r\n") + 4 - out;
    if (say(c, out, n) && c->closing) hang_up(c);
}

// Takes one whole request off the front of the input. Returns whether there was one.
static int take_request(Conn *c) {
    char *blank = memmem(c->in, c->in_len, "\r\n\r\n", 4);
    if (!blank || c->playing) return 0;
    int head_len = blank + 2 - c->in, rest = c->in_len - head_len - 2, wire = 0, body_len = 0, len;
    char *body = blank + 4;
    const char *value = header(c->in, head_len, "transfer-encoding", &len);
    int chunked = value && len == 7 && !strncasecmp(value, "chunked", 7);
    if (chunked) wire = unchunk(body, rest, &body_len);
    else if ((value = header(c->in, head_len, "content-length", &len))) wire = body_len = atoi(value);
    if (wire < 0) { hang_up(c); return 0; }
    if (rest < wire || (chunked && !wire)) {
        if (!c->greeted && header(c->in, head_len, "expect", &len)) c->greeted = say(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
        return 0;
    }
    c->greeted = 0;
    answer(c, c->in, head_len, body, body_len);
    if (c->fd < 0) return 0;
    int used = body + wire - c->in;
    memmove(c->in, c->in + used, c->in_len - used);
    c->in_len -= used;
    return c->in_len > 0;
}

static void hear(Conn *c) {
    if (c->in_len == c->in_cap) {
        c->in_cap = c->in_cap ? 2 * c->in_cap : 4096;
        if (c->in_cap > INPUT_MAX || !(c->in = realloc(c->in, c->in_cap))) { hang_up(c); return; }
    }
    int n = recv(c->fd, c->in + c->in_len, c->in_cap - c->in_len, 0);
    if (n <= 0) {
        if (n < 0 && errno == EAGAIN) return;
        cut_off += c->playing;
        hang_up(c);
        return;
    }
    c->in_len += n;
    while (take_request(c)) {}
}

// --- the loop -------------------------------------------------------------------------------------------------------

static void greet(int epoll, int listener) {
    struct sockaddr_in peer;
    socklen_t size = sizeof peer;
    for (int fd, one = 1; (fd = accept4(listener, (void *)&peer, &size, SOCK_NONBLOCK)) >= 0; size = sizeof peer) {
        if (fd >= FDS) { close(fd); continue; }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        Conn *c = conns[fd];
        if (!c) c = conns[fd] = calloc(1, sizeof(Conn));
        c->fd = fd;
        c->port = ntohs(peer.sin_port);
        c->playing = c->greeted = 0;
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

static void arm(int timer, int64_t due) {
    struct itimerspec when = {.it_value = {due / 1000000000, due % 1000000000}};
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, NULL);
}

static void serve(int listener) {
    struct epoll_event events[EVENTS], event = {.events = EPOLLIN, .data.fd = listener};
    int epoll = epoll_create1(0), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    event.data.fd = timer;
    epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event);
    for (int64_t armed = 0; !stopping;) {
        int64_t now = now_ns();
        // A long burst must not keep requests waiting: their arrival is part of the truth.
        for (int burst = 0; burst < 64 && heap_len && heap[0].due_ns <= now; burst++, now = now_ns()) play(heap_pop());
        int64_t next = heap_len ? heap[0].due_ns : 0;
        int soon = next && next <= now + option.spin_ns;
        if (next && !soon && next != armed) arm(timer, armed = next);
        int n = epoll_wait(epoll, events, EVENTS, soon ? 0 : 200);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            uint64_t ticks;
            if (fd == timer) armed = read(timer, &ticks, 8) == 8 ? 0 : armed;
            else if (fd == listener) greet(epoll, listener);
            else if (conns[fd]->fd == fd) hear(conns[fd]);
        }
    }
}

// --- the account ----------------------------------------------------------------------------------------------------

static int by_value(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void account(void) {
    int64_t *late = malloc(sizeof *late * (write_count + 1));
    for (size_t i = 0; i < write_count; i++) late[i] = writes[i].wrote_ns - writes[i].due_ns;
    qsort(late, write_count, sizeof *late, by_value);
    size_t last = write_count ? write_count - 1 : 0;
    struct timespec cpu;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    late[write_count] = 0;
    printf("{\"requests\": %zu, \"replies\": %zu, \"writes\": %zu, \"unlogged\": %zu, \"cut_off\": %zu, "
           "\"late_us\": {\"p50\": %.1f, \"p99\": %.1f, \"max\": %.1f}, \"cpu_us_per_write\": %.2f}\n",
           request_count, replies, write_count, unlogged, cut_off, late[last / 2] / 1e3,
           late[(size_t)(last * 0.99)] / 1e3, late[last] / 1e3,
           (cpu.tv_sec * 1e6 + cpu.tv_nsec / 1e3) / (write_count ? write_count : 1));
    free(late);
}

static int save(void) {
    if (!option.log) return 0;
    LogHead head = {"IFSERVE1", request_count, write_count};
    FILE *file = fopen(option.log, "wb");
    if (!file || fwrite(&head, sizeof head, 1, file) != 1 || fwrite(requests, sizeof *requests, request_count, file) != request_count ||
        fwrite(writes, sizeof *writes, write_count, file) != write_count || fclose(file)) {
        perror(option.log);
        return 1;
    }
    return 0;
}

static void stop(int signal) { stopping = signal; }

static int usage(void) {
    fprintf(stderr, "usage: server [--port N] [--ttft-ms X] [--gap-ms X] [--tokens N] [--lockstep] [--spin-us X]\n"
                    "              [--seed N] [--writes-max N] [--requests-max N] [--log FILE] [--seconds N]\n"
                    "Prints 'ready PORT' once it listens on 127.0.0.1 (port 0: a free one); ends on SIGTERM or after --seconds,\n"
                    "then prints its account as JSON.\n");
    return 2;
}

static int read_options(int argc, char **argv) {
    static const struct option names[] = {
        {"port", 1, 0, 'p'}, {"ttft-ms", 1, 0, 't'}, {"gap-ms", 1, 0, 'g'}, {"tokens", 1, 0, 'n'}, {"lockstep", 0, 0, 'l'},
        {"spin-us", 1, 0, 's'}, {"seed", 1, 0, 'r'}, {"writes-max", 1, 0, 'w'}, {"requests-max", 1, 0, 'q'}, {"log", 1, 0, 'o'},
        {"seconds", 1, 0, 'd'}, {0}};
    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) switch (c) {
        case 'p': option.port = atoi(optarg); break;
        case 't': option.ttft_ns = atof(optarg) * 1e6; break;
        case 'g': option.gap_ns = atof(optarg) * 1e6; break;
        case 'n': option.tokens = atoi(optarg); break;
        case 'l': option.lockstep = 1; break;
        case 's': option.spin_ns = atof(optarg) * 1e3; break;
        case 'r': random_state ^= strtoull(optarg, NULL, 10) * 0x9e3779b97f4a7c15ull; break;
        case 'w': option.log_writes = strtoull(optarg, NULL, 10); break;
        case 'q': option.log_requests = strtoull(optarg, NULL, 10); break;
        case 'o': option.log = optarg; break;
        case 'd': alarm(atoi(optarg)); break;
        default: return 0;
    }
    return optind == argc && option.tokens > 0;
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (void *)&at, size) || listen(fd, 8192) || getsockname(fd, (void *)&at, &size)) return -1;
    option.port = ntohs(at.sin_port);
    return fd;
}

static void *touched(size_t count, size_t size) {  // page faults happen now, not while tokens are due
    void *memory = malloc(count * size);
    if (!memory) { perror("server"); exit(1); }
    return memset(memory, 1, count * size);
}

int main(int argc, char **argv) {
    if (!read_options(argc, argv)) return usage();
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    prctl(PR_SET_TIMERSLACK, 1);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGTERM, stop);
    signal(SIGINT, stop);
    signal(SIGALRM, stop);
    requests = touched(option.log_requests, sizeof *requests);
    writes = touched(option.log_writes, sizeof *writes);
    int listener = listen_on(option.port);
    if (listener < 0) { perror("server"); return 1; }
    printf("ready %d\n", option.port);
    fflush(stdout);
    serve(listener);
    account();
    return save();
}
