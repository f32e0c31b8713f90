/* What operators see of calls: records, metrics, notices; and that no prompt, answer, key or provider's word is in them.
 * Arguments: a configuration of a provider whose streams are slow, whose model `hang` never answers and whose model
 * `broken` fails; another one to reload; the words that must not be seen, which `broken` says too. */

#include "check.h"
#include <pthread.h>
#include <time.h>
#include <unistd.h>

enum { MOST_TEXT = 1 << 20 };
static char seen[MOST_TEXT];

/* Keeps what was seen, for a look at the end. */
static void keep(const char *text) {
    CHECK(text != NULL && strlen(seen) + strlen(text) + 2 < sizeof seen);
    strcat(strcat(seen, text), "\n");
}

static void keep_json(const LiterLlmResult *result) {
    keep(liter_llm_result_json(result, NULL));
}

static LiterLlmRecords *on_call(LiterLlmEngine *engine, size_t most, LiterLlmCallback callback, void *context) {
    LiterLlmResult *error;
    LiterLlmRecords *records = liter_llm_engine_on_call(engine, most, callback, context, &error);
    CHECK(records != NULL && error == NULL);
    return records;
}

static void ask(LiterLlmEngine *engine, const char *request, const char *kind) {
    LiterLlmResult *answer = generate(engine, request);
    if (kind != NULL) {
        CHECK(strcmp(liter_llm_result_kind(answer), kind) == 0);
    } else {
        CHECK_STATUS(answer, LITER_LLM_STATUS_OK);
    }
    liter_llm_result_free(answer);
}

/* The next record; these parts are in it. */
static void expect(LiterLlmRecords *records, const char *first, const char *second) {
    LiterLlmResult *record = liter_llm_records_next(records, 30000);
    CHECK_STATUS(record, LITER_LLM_STATUS_OK);
    CHECK(json_has(record, "\"operation\":\"chat\""));
    if (!json_has(record, first) || !json_has(record, second)) {
        fprintf(stderr, "no %s or %s: %s\n", first, second, liter_llm_result_json(record, NULL));
        exit(1);
    }
    CHECK(says(record, ""));
    keep_json(record);
    liter_llm_result_free(record);
}

static void expect_status(LiterLlmRecords *records, int64_t limit, LiterLlmStatus status) {
    LiterLlmResult *next = liter_llm_records_next(records, limit);
    CHECK_STATUS(next, status);
    CHECK(liter_llm_result_json(next, NULL) == NULL);
    liter_llm_result_free(next);
}

static LiterLlmResult *metrics(LiterLlmEngine *engine, const char *accept) {
    LiterLlmResult *told = liter_llm_engine_ask(engine, "metrics", accept, accept == NULL ? 0 : strlen(accept));
    CHECK_STATUS(told, LITER_LLM_STATUS_OK);
    keep(liter_llm_result_text(told, NULL));
    keep_json(told);
    return told;
}

/* The metrics' line that begins so; its value. */
static double value(const LiterLlmResult *told, const char *line) {
    const char *at = strstr(liter_llm_result_text(told, NULL), line);
    if (at == NULL) {
        fprintf(stderr, "no %s: %s\n", line, liter_llm_result_text(told, NULL));
        exit(1);
    }
    at = strchr(at, '}');
    CHECK(at != NULL);
    return strtod(at + 1, NULL);
}

/* A callback's count, and what it waits for. */
struct Told {
    LiterLlmEngine *engine;
    LiterLlmRecords *records; /* freed in the callback, if there is one */
    pthread_t main;
    int count, ends, hold;
};

static void hear(void *context, LiterLlmResult *result) {
    struct Told *told = context;
    CHECK(!pthread_equal(pthread_self(), told->main));
    if (liter_llm_result_status(result) == LITER_LLM_STATUS_END) {
        liter_llm_result_free(result);
        __atomic_add_fetch(&told->ends, 1, __ATOMIC_ACQ_REL);
        return;
    }
    CHECK_STATUS(result, LITER_LLM_STATUS_OK);
    CHECK(json_has(result, "\"operation\":\"chat\"") && told->ends == 0);
    liter_llm_result_free(result);
    int count = __atomic_add_fetch(&told->count, 1, __ATOMIC_ACQ_REL);
    while (__atomic_load_n(&told->hold, __ATOMIC_ACQUIRE)) {
        usleep(1000);
    }
    LiterLlmRecords *own = __atomic_exchange_n(&told->records, NULL, __ATOMIC_ACQ_REL);
    if (own != NULL) {
        /* What waits is refused to callbacks of calls, not to these. */
        CHECK(count == 1);
        liter_llm_records_free(own);
        ask(told->engine, "{\"prompt\": \"[echo] from a callback\"}", NULL);
    }
}

static void await(int *number, int wanted) {
    for (int round = 0; __atomic_load_n(number, __ATOMIC_ACQUIRE) < wanted; round++) {
        CHECK(round < 30000);
        usleep(1000);
    }
}

static void *close_soon(void *records) {
    usleep(50000);
    liter_llm_records_close(records);
    return NULL;
}

/* Reads a result of a call whose model never answers: a callback of a call must not wait for records. */
static void may_not_wait(void *context, LiterLlmResult *result) {
    struct Told *told = context;
    liter_llm_result_free(result);
    CHECK_KIND(liter_llm_records_next(told->records, -1), "invalid_request");
    CHECK_KIND(liter_llm_records_next(told->records, 10), "invalid_request");
    liter_llm_result_free(liter_llm_records_next(told->records, 0));
    __atomic_add_fetch(&told->ends, 1, __ATOMIC_ACQ_REL);
}

static double now(void) {
    struct timespec at;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &at) == 0);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

int main(int count, char **words) {
    CHECK(count == 4);
    char echo[400], broken[400], hang[400], longer[400];
    snprintf(echo, sizeof echo, "{\"prompt\": \"[echo] %s\", \"system\": \"%s\"}", words[3], words[3]);
    snprintf(broken, sizeof broken, "{\"prompt\": \"%s\", \"model\": \"broken\"}", words[3]);
    snprintf(hang, sizeof hang, "{\"prompt\": \"%s\", \"model\": \"hang\"}", words[3]);
    snprintf(longer, sizeof longer, "{\"prompt\": \"%s [tokens=500]\"}", words[3]);
    LiterLlmEngine *engine = engine_of(words[1]);

    /* The words come back in an answer and in an error: they are there to be seen. */
    LiterLlmResult *answer = generate(engine, echo);
    CHECK_STATUS(answer, LITER_LLM_STATUS_OK);
    CHECK(strstr(liter_llm_result_text(answer, NULL), words[3]) != NULL);
    liter_llm_result_free(answer);
    answer = generate(engine, broken);
    CHECK(strstr(liter_llm_result_json(answer, NULL), words[3]) != NULL);
    liter_llm_result_free(answer);

    /* Every call from now on: a whole one, a failed one, a streamed one, a cancelled one; after a reload too. */
    LiterLlmRecords *records = on_call(engine, 100, NULL, NULL);
    liter_llm_result_free(metrics(engine, NULL));
    expect_status(records, 0, LITER_LLM_STATUS_PENDING);
    expect_status(records, 10, LITER_LLM_STATUS_PENDING);
    ask(engine, echo, NULL);
    expect(records, "\"finish_reason\":\"stop\"", "\"usage\":{");
    ask(engine, broken, "invalid_request");
    expect(records, "\"error\":{\"kind\":\"invalid_request\",\"status\":400", "\"model\":\"broken\"");
    char text[1000];
    LiterLlmCall *call = stream(engine, echo, NULL, NULL);
    read_all(call, text, sizeof text);
    CHECK(strstr(text, words[3]) != NULL);
    expect(records, "\"streamed\":true", "\"first_chunk\":");
    CHECK_KIND(liter_llm_call_record(call), "invalid_request");
    liter_llm_call_free(call);
    call = stream(engine, longer, NULL, NULL);
    LiterLlmResult *next = liter_llm_call_next(call, -1);
    CHECK_STATUS(next, LITER_LLM_STATUS_CHUNKS);
    liter_llm_result_free(next);
    liter_llm_call_free(call);
    expect(records, "\"error\":{\"kind\":\"cancelled\"", "\"chunks\":");
    LiterLlmResult *reloaded = liter_llm_engine_reload(engine, words[2], strlen(words[2]));
    CHECK_STATUS(reloaded, LITER_LLM_STATUS_OK);
    liter_llm_result_free(reloaded);
    ask(engine, echo, NULL);
    expect(records, "\"model\":\"second\"", "\"attempts\":[{");
    CHECK(liter_llm_records_dropped(records) == 0);

    /* The same, counted, in both forms; and what was noticed, once. */
    LiterLlmResult *told = metrics(engine, NULL);
    CHECK(json_has(told, "\"content_type\":\"text/plain; version=0.0.4; charset=utf-8\""));
    CHECK(value(told, "gen_ai_client_operation_duration_seconds_count{gen_ai_operation_name=\"chat\",gen_ai_provider_name="
                      "\"openai\",gen_ai_request_model=\"second\"") == 1.0);
    CHECK(value(told, "liter_llm_circuit_state{") == 0.0);
    CHECK(strstr(liter_llm_result_text(told, NULL), "error_type=\"cancelled\"") != NULL);
    CHECK(strstr(liter_llm_result_text(told, NULL), "# EOF") == NULL);
    liter_llm_result_free(told);
    told = metrics(engine, "application/openmetrics-text; version=1.0.0");
    CHECK(json_has(told, "\"content_type\":\"application/openmetrics-text;"));
    CHECK(strstr(liter_llm_result_text(told, NULL), "# EOF\n") != NULL);
    liter_llm_result_free(told);
    CHECK_KIND(liter_llm_engine_ask(engine, "metrics", "\xff", 1), "invalid_request");
    told = liter_llm_engine_ask(engine, "notices", NULL, 0);
    CHECK(json_has(told, "\"kind\":\"reloaded\""));
    keep_json(told);
    liter_llm_result_free(told);
    told = liter_llm_engine_ask(engine, "notices", NULL, 0);
    CHECK(strcmp(liter_llm_result_json(told, NULL), "[]") == 0);
    liter_llm_result_free(told);

    /* One that is full drops, and says so; what is there can be read after it was closed, and nothing comes then. */
    LiterLlmRecords *few = on_call(engine, 2, NULL, NULL);
    for (int round = 0; round < 5; round++) {
        ask(engine, echo, NULL);
    }
    CHECK(liter_llm_records_dropped(few) == 3);
    liter_llm_records_close(few);
    liter_llm_records_close(few);
    ask(engine, echo, NULL);
    expect(few, "\"model\":\"second\"", "\"usage\":{");
    expect(few, "\"model\":\"second\"", "\"usage\":{");
    expect_status(few, -1, LITER_LLM_STATUS_END);
    expect_status(few, 0, LITER_LLM_STATUS_END);
    CHECK(liter_llm_records_dropped(few) == 3);
    liter_llm_records_free(few);

    /* Closed while another thread waits; and no waiting in a call's callback. */
    few = on_call(engine, 2, NULL, NULL);
    pthread_t other;
    CHECK(pthread_create(&other, NULL, close_soon, few) == 0);
    expect_status(few, -1, LITER_LLM_STATUS_END);
    CHECK(pthread_join(other, NULL) == 0);
    struct Told waits = {.engine = engine, .records = few};
    call = submit(engine, echo, may_not_wait, &waits);
    await(&waits.ends, 1);
    liter_llm_call_free(call);
    liter_llm_records_free(few);

    /* A callback that blocks holds up no call and loses records. */
    struct Told slow = {.engine = engine, .main = pthread_self(), .hold = 1};
    few = on_call(engine, 2, hear, &slow);
    CHECK_KIND(liter_llm_records_next(few, 0), "invalid_request");
    ask(engine, echo, NULL);
    await(&slow.count, 1);
    double begun = now();
    for (int round = 0; round < 6; round++) {
        ask(engine, echo, NULL);
    }
    CHECK(now() - begun < 20 && slow.count == 1);
    CHECK(liter_llm_records_dropped(few) == 4);
    liter_llm_records_free(few);
    CHECK(__atomic_load_n(&slow.ends, __ATOMIC_ACQUIRE) == 0);
    __atomic_store_n(&slow.hold, 0, __ATOMIC_RELEASE);
    await(&slow.ends, 1);
    CHECK(slow.count == 3 && slow.ends == 1);

    /* One that frees its own recording, and makes a call that waits. */
    struct Told frees = {.engine = engine, .main = pthread_self(), .hold = 1};
    LiterLlmRecords *own = on_call(engine, 10, hear, &frees);
    __atomic_store_n(&frees.records, own, __ATOMIC_RELEASE);
    ask(engine, echo, NULL);
    __atomic_store_n(&frees.hold, 0, __ATOMIC_RELEASE);
    await(&frees.ends, 1);
    CHECK(frees.count == 1 && frees.ends == 1);

    /* The record of one call: while it runs, when it was cancelled, when it is over, when it never began. */
    liter_llm_engine_keep_records(engine, 1);
    call = submit(engine, hang, NULL, NULL);
    for (int round = 0;; round++) {
        told = liter_llm_call_record(call);
        CHECK_STATUS(told, LITER_LLM_STATUS_PENDING);
        int sent = json_has(told, "\"attempts\":[{");
        if (sent) {
            CHECK(json_has(told, "\"model\":\"hang\""));
            keep_json(told);
        }
        liter_llm_result_free(told);
        if (sent) {
            break;
        }
        CHECK(round < 30000);
        usleep(1000);
    }
    liter_llm_call_cancel(call);
    told = liter_llm_call_record(call);
    for (int round = 0; liter_llm_result_status(told) == LITER_LLM_STATUS_PENDING; round++) {
        liter_llm_result_free(told);
        CHECK(round < 30000);
        usleep(1000);
        told = liter_llm_call_record(call);
    }
    CHECK_STATUS(told, LITER_LLM_STATUS_OK);
    CHECK(json_has(told, "\"error\":{\"kind\":\"cancelled\"") && json_has(told, "\"attempts\":[{"));
    keep_json(told);
    liter_llm_result_free(told);
    liter_llm_call_free(call);
    for (int streamed = 0; streamed < 2; streamed++) {
        call = (streamed ? stream : submit)(engine, echo, NULL, NULL);
        if (streamed) {
            read_all(call, text, sizeof text);
        } else {
            liter_llm_result_free(liter_llm_call_next(call, -1));
        }
        told = liter_llm_call_record(call);
        CHECK_STATUS(told, LITER_LLM_STATUS_OK);
        CHECK(json_has(told, "\"usage\":{") && json_has(told, streamed ? "\"streamed\":true" : "\"streamed\":false"));
        keep_json(told);
        liter_llm_call_free(call);
        liter_llm_result_free(told);
    }
    call = submit(engine, "{\"prompt\": 7}", NULL, NULL);
    CHECK_KIND(liter_llm_call_next(call, -1), "invalid_request");
    told = liter_llm_call_record(call);
    CHECK_STATUS(told, LITER_LLM_STATUS_PENDING);
    CHECK(liter_llm_result_json(told, NULL) == NULL);
    liter_llm_result_free(told);
    liter_llm_call_free(call);
    liter_llm_engine_keep_records(engine, 0);
    call = submit(engine, echo, NULL, NULL);
    CHECK_KIND(liter_llm_call_record(call), "invalid_request");
    answer = liter_llm_call_next(call, -1);
    CHECK_STATUS(answer, LITER_LLM_STATUS_OK);
    liter_llm_result_free(answer);
    liter_llm_call_free(call);

    /* It outlives the engine. */
    LiterLlmRecords *last = on_call(engine, 10, NULL, NULL);
    call = submit(engine, echo, NULL, NULL);
    liter_llm_engine_free(engine);
    answer = liter_llm_call_next(call, -1);
    CHECK_STATUS(answer, LITER_LLM_STATUS_OK);
    liter_llm_result_free(answer);
    liter_llm_call_free(call);
    expect(last, "\"model\":\"second\"", "\"usage\":{");
    liter_llm_records_free(last);
    liter_llm_records_close(records);
    for (;;) {
        next = liter_llm_records_next(records, -1);
        if (liter_llm_result_status(next) == LITER_LLM_STATUS_END) {
            liter_llm_result_free(next);
            break;
        }
        keep_json(next);
        liter_llm_result_free(next);
    }
    liter_llm_records_free(records);

    /* Nothing of what was said, and no key. */
    CHECK(strlen(seen) > 10000 && strstr(seen, "prompt_len") != NULL);
    CHECK(strstr(seen, words[3]) == NULL && strstr(seen, "sk-secret") == NULL);
    puts("records: all");
    return 0;
}
