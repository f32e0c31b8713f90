/* The test vectors through the C ABI, as tests/vectors/README.md says: this program makes the calls and hands in what
 * came out; the server compares. Arguments: the server's port; `wait` or `callback`, the way in which the calls are
 * made. Ends with 0 when every vector of the server's list was judged and held. */

#include "check.h"
#include <arpa/inet.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

/* Bytes that grow; a zero byte stands behind them. */
struct Bytes {
    char *data;
    size_t length, room;
};

static void add(struct Bytes *bytes, const char *data, size_t length) {
    if (bytes->length + length + 1 > bytes->room) {
        bytes->room = 2 * (bytes->length + length + 1);
        bytes->data = realloc(bytes->data, bytes->room);
        CHECK(bytes->data != NULL);
    }
    memcpy(bytes->data + bytes->length, data, length);
    bytes->length += length;
    bytes->data[bytes->length] = '\0';
}

static void add_text(struct Bytes *bytes, const char *text) {
    add(bytes, text, strlen(text));
}

static void add_json(struct Bytes *bytes, const char *before, const LiterLlmResult *result) {
    size_t length;
    const char *json = liter_llm_result_json(result, &length);
    add_text(bytes, before);
    add(bytes, json, length);
}

static unsigned short port;

/* One request to the server; the body of its answer, to be freed. */
static struct Bytes ask(const char *method, const char *path, const struct Bytes *body, int *status) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    CHECK(inet_pton(AF_INET, "127.0.0.1", &address.sin_addr) == 1);
    int peer = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(peer >= 0 && connect(peer, (struct sockaddr *)&address, sizeof address) == 0);
    char head[512];
    int length = snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nhost: v\r\ncontent-length: %zu\r\nconnection: close\r\n\r\n",
                          method, path, body == NULL ? 0 : body->length);
    struct Bytes out = {0}, in = {0};
    add(&out, head, (size_t)length);
    if (body != NULL) {
        add(&out, body->data, body->length);
    }
    for (size_t sent = 0; sent < out.length;) {
        ssize_t now = send(peer, out.data + sent, out.length - sent, MSG_NOSIGNAL);
        CHECK(now > 0);
        sent += (size_t)now;
    }
    free(out.data);
    char part[16384];
    ssize_t got;
    while ((got = recv(peer, part, sizeof part, 0)) > 0) {
        add(&in, part, (size_t)got);
    }
    CHECK(got == 0 && close(peer) == 0 && in.data != NULL);
    char *end = strstr(in.data, "\r\n\r\n");
    CHECK(end != NULL && strncmp(in.data, "HTTP/1.1 ", 9) == 0);
    *status = atoi(in.data + 9);
    size_t before = (size_t)(end + 4 - in.data);
    memmove(in.data, in.data + before, in.length - before + 1);
    in.length -= before;
    return in;
}

static struct Bytes get(const char *name, const char *rest) {
    char path[256];
    int status;
    snprintf(path, sizeof path, "/v/%s/%s", name, rest);
    struct Bytes body = ask("GET", path, NULL, &status);
    CHECK(status == 200);
    return body;
}

/* The results of a call, in the order in which they come, for a thread that waits for the callback. */
struct Told {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    LiterLlmResult *results[4096];
    int written, read;
};

static void tell(void *context, LiterLlmResult *result) {
    struct Told *told = context;
    CHECK(pthread_mutex_lock(&told->lock) == 0);
    CHECK(told->written < (int)(sizeof told->results / sizeof *told->results));
    told->results[told->written++] = result;
    CHECK(pthread_cond_signal(&told->changed) == 0);
    CHECK(pthread_mutex_unlock(&told->lock) == 0);
}

static LiterLlmResult *next(LiterLlmCall *call, struct Told *told) {
    if (told == NULL) {
        return liter_llm_call_next(call, -1);
    }
    CHECK(pthread_mutex_lock(&told->lock) == 0);
    while (told->read == told->written) {
        CHECK(pthread_cond_wait(&told->changed, &told->lock) == 0);
    }
    LiterLlmResult *result = told->results[told->read++];
    CHECK(pthread_mutex_unlock(&told->lock) == 0);
    return result;
}

/* The end of the JSON value that begins here. */
static const char *behind(const char *json) {
    int depth = 0, inside = 0;
    do {
        CHECK(*json != '\0');
        if (inside && *json == '\\') {
            json++;
        } else if (*json == '"') {
            inside = !inside;
        } else if (!inside && strchr("{[", *json) != NULL) {
            depth++;
        } else if (!inside && strchr("}]", *json) != NULL) {
            depth--;
        }
        json++;
    } while (depth > 0 || inside);
    return json;
}

/* The messages of the answers so far, byte for byte as they came; a call that failed has none. */
struct Answers {
    struct Bytes messages[8];
    int count;
};

static void keep_message(struct Answers *answers, const LiterLlmResult *answer) {
    size_t length;
    const char *place = liter_llm_result_json(answer, &length);
    static const char NAME[] = "\"message\":";
    CHECK(answers->count > 0 && *place == '{');
    for (place++; strncmp(place, NAME, strlen(NAME)) != 0; place++) {
        place = behind(place) + 1;
        /* The value: a string, a list, an object; or a number or a word, which end before a comma. */
        place = strchr("\"[{", *place) != NULL ? behind(place) : place + strcspn(place, ",}");
        CHECK(*place == ',');
    }
    place += strlen(NAME);
    add(&answers->messages[answers->count - 1], place, (size_t)(behind(place) - place));
}

/* Puts the messages of the answers so far in place of what stands for them. */
static void put_answers(struct Bytes *request, const struct Answers *answers) {
    for (int number = 0; number < answers->count; number++) {
        char name[32];
        snprintf(name, sizeof name, "{\"answer_of\":%d}", number);
        for (char *place; (place = strstr(request->data, name)) != NULL;) {
            struct Bytes with = {0};
            CHECK(answers->messages[number].data != NULL);
            add(&with, request->data, (size_t)(place - request->data));
            add(&with, answers->messages[number].data, answers->messages[number].length);
            add_text(&with, place + strlen(name));
            free(request->data);
            *request = with;
        }
    }
}

static void whole(LiterLlmEngine *engine, const struct Bytes *request, struct Told *told, struct Bytes *outcomes,
                  struct Answers *answers) {
    LiterLlmCall *call = NULL;
    LiterLlmResult *result;
    if (told == NULL) {
        result = liter_llm_generate(engine, request->data, request->length);
    } else {
        call = liter_llm_submit(engine, request->data, request->length, tell, told);
        CHECK(call != NULL);
        result = next(call, told);
    }
    int failed = liter_llm_result_status(result) == LITER_LLM_STATUS_ERROR;
    add_json(outcomes, failed ? "{\"error\":" : "{\"response\":", result);
    add_text(outcomes, "}");
    if (!failed) {
        keep_message(answers, result);
    }
    liter_llm_result_free(result);
    liter_llm_call_free(call);
}

static void streamed(LiterLlmEngine *engine, const struct Bytes *request, struct Told *told, struct Bytes *outcomes,
                     struct Answers *answers) {
    LiterLlmCall *call =
        liter_llm_stream(engine, request->data, request->length, told == NULL ? NULL : tell, told);
    CHECK(call != NULL);
    add_text(outcomes, "{\"chunks\":[");
    LiterLlmResult *result;
    for (int first = 1; liter_llm_result_status(result = next(call, told)) == LITER_LLM_STATUS_CHUNKS; first = 0) {
        /* A batch is a list: its items without its brackets. */
        size_t length;
        const char *json = liter_llm_result_json(result, &length);
        add_text(outcomes, first ? "" : ",");
        add(outcomes, json + 1, length - 2);
        liter_llm_result_free(result);
    }
    if (liter_llm_result_status(result) == LITER_LLM_STATUS_ERROR) {
        add_json(outcomes, "],\"error\":", result);
    } else {
        CHECK_STATUS(result, LITER_LLM_STATUS_END);
        LiterLlmResult *answer = liter_llm_call_answer(call);
        CHECK_STATUS(answer, LITER_LLM_STATUS_OK);
        add_json(outcomes, "],\"response\":", answer);
        keep_message(answers, answer);
        liter_llm_result_free(answer);
    }
    add_text(outcomes, "}");
    liter_llm_result_free(result);
    liter_llm_call_free(call);
}

/* Makes the calls of a vector; 1 when it holds. */
static int run(const char *name, int by_callback) {
    char path[256];
    int status;
    snprintf(path, sizeof path, "/v/%s/reset", name);
    free(ask("POST", path, NULL, &status).data);
    CHECK(status == 200);
    struct Bytes config = get(name, "config"), calls = get(name, "calls"), outcomes = {0};
    struct Answers answers = {0};
    add_text(&outcomes, "[");
    LiterLlmResult *error;
    LiterLlmEngine *engine = liter_llm_engine_new(config.data, config.length, &error);
    if (engine == NULL) {
        add_json(&outcomes, "{\"error\":", error);
        add_text(&outcomes, "}");
        liter_llm_result_free(error);
    } else {
        char *rest = NULL, *kind = strtok_r(calls.data, "\n", &rest);
        for (int number = 0; kind != NULL; number++, kind = strtok_r(NULL, "\n", &rest)) {
            char at[32];
            snprintf(at, sizeof at, "calls/%d", number);
            struct Bytes request = get(name, at);
            struct Told *told = NULL;
            if (by_callback) {
                told = calloc(1, sizeof *told);
                CHECK(told != NULL && pthread_mutex_init(&told->lock, NULL) == 0);
                CHECK(pthread_cond_init(&told->changed, NULL) == 0);
            }
            add_text(&outcomes, number == 0 ? "" : ",");
            put_answers(&request, &answers);
            answers.count++;
            CHECK(answers.count <= (int)(sizeof answers.messages / sizeof *answers.messages));
            (strcmp(kind, "stream") == 0 ? streamed : whole)(engine, &request, told, &outcomes, &answers);
            free(told);
            free(request.data);
        }
    }
    add_text(&outcomes, "]");
    liter_llm_engine_free(engine);
    snprintf(path, sizeof path, "/v/%s/judge", name);
    struct Bytes word = ask("POST", path, &outcomes, &status);
    if (status != 200) {
        printf("%s: %s\n", name, word.data);
    }
    for (int number = 0; number < answers.count; number++) {
        free(answers.messages[number].data);
    }
    free(config.data);
    free(calls.data);
    free(outcomes.data);
    free(word.data);
    return status == 200;
}

int main(int count, char **words) {
    CHECK(count == 3);
    port = (unsigned short)atoi(words[1]);
    int by_callback = strcmp(words[2], "callback") == 0;
    CHECK(by_callback || strcmp(words[2], "wait") == 0);
    int status, ran = 0, held = 0;
    struct Bytes names = ask("GET", "/v", NULL, &status);
    CHECK(status == 200);
    char *rest = NULL;
    for (char *name = strtok_r(names.data, "\n", &rest); name != NULL; name = strtok_r(NULL, "\n", &rest)) {
        ran++;
        held += run(name, by_callback);
    }
    free(names.data);
    printf("vectors: %d run, %d hold\n", ran, held);
    return ran > 0 && held == ran ? 0 : 1;
}
