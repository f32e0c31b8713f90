/* Calls that tell a callback. Argument: a configuration of a provider whose streams are slow, and whose model `hang`
 * never answers. */

#include "check.h"
#include <pthread.h>
#include <time.h>

static const char ECHO[] = "{\"prompt\": \"[echo] told\"}";
static const char LONG[] = "{\"prompt\": \"[tokens=300]\"}";
static const char HANG[] = "{\"prompt\": \"hello\", \"model\": \"hang\"}";

/* What a callback has heard. */
struct Heard {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    LiterLlmEngine *engine;
    LiterLlmCall *call; /* what to do with it in the callback is `act`'s */
    void (*act)(struct Heard *);
    pthread_t main;
    int batches, lasts;
    LiterLlmStatus last;
    char kind[64], text[8192];
};

static void begin(struct Heard *heard, LiterLlmEngine *engine, void (*act)(struct Heard *)) {
    memset(heard, 0, sizeof *heard);
    CHECK(pthread_mutex_init(&heard->lock, NULL) == 0 && pthread_cond_init(&heard->changed, NULL) == 0);
    heard->engine = engine;
    heard->act = act;
    heard->main = pthread_self();
}

static void hear(void *context, LiterLlmResult *result) {
    struct Heard *heard = context;
    CHECK(!pthread_equal(pthread_self(), heard->main));
    CHECK(pthread_mutex_lock(&heard->lock) == 0);
    LiterLlmStatus status = liter_llm_result_status(result);
    CHECK(heard->lasts == 0 && status != LITER_LLM_STATUS_PENDING);
    if (status == LITER_LLM_STATUS_CHUNKS || status == LITER_LLM_STATUS_OK) {
        size_t length;
        const char *text = liter_llm_result_text(result, &length);
        CHECK(strlen(heard->text) + length < sizeof heard->text);
        memcpy(heard->text + strlen(heard->text), text, length);
    }
    if (status == LITER_LLM_STATUS_CHUNKS) {
        heard->batches++;
    } else {
        heard->last = status;
        if (status == LITER_LLM_STATUS_ERROR) {
            snprintf(heard->kind, sizeof heard->kind, "%s", liter_llm_result_kind(result));
        }
    }
    liter_llm_result_free(result);
    /* The call's handle is there once main() let go of the lock. */
    if (heard->act != NULL && heard->call != NULL) {
        heard->act(heard);
    }
    if (status != LITER_LLM_STATUS_CHUNKS) {
        heard->lasts++;
        CHECK(pthread_cond_signal(&heard->changed) == 0);
    }
    CHECK(pthread_mutex_unlock(&heard->lock) == 0);
}

static void await(struct Heard *heard) {
    struct timespec until;
    CHECK(clock_gettime(CLOCK_REALTIME, &until) == 0);
    until.tv_sec += 60;
    CHECK(pthread_mutex_lock(&heard->lock) == 0);
    while (heard->lasts == 0) {
        CHECK(pthread_cond_timedwait(&heard->changed, &heard->lock, &until) == 0);
    }
    CHECK(pthread_mutex_unlock(&heard->lock) == 0);
}

static void run(struct Heard *heard, int streamed, const char *request) {
    CHECK(pthread_mutex_lock(&heard->lock) == 0);
    heard->call = (streamed ? stream : submit)(heard->engine, request, hear, heard);
    CHECK(pthread_mutex_unlock(&heard->lock) == 0);
    await(heard);
}

static void free_own_call(struct Heard *heard) {
    liter_llm_call_free(heard->call);
    heard->call = NULL;
}

static void cancel_own_call(struct Heard *heard) {
    liter_llm_call_cancel(heard->call);
}

/* What would wait refuses; what does not wait works. */
static void try_everything(struct Heard *heard) {
    CHECK_KIND(liter_llm_generate(heard->engine, ECHO, strlen(ECHO)), "invalid_request");
    CHECK_KIND(liter_llm_engine_ask(heard->engine, "explain", ECHO, strlen(ECHO)), "invalid_request");
    LiterLlmCall *call = submit(heard->engine, ECHO, NULL, NULL);
    CHECK_KIND(liter_llm_call_next(call, -1), "invalid_request");
    CHECK_KIND(liter_llm_call_next(call, 10), "invalid_request");
    liter_llm_result_free(liter_llm_call_next(call, 0));
    liter_llm_call_free(call);
    LiterLlmResult *state = liter_llm_engine_ask(heard->engine, "state", NULL, 0);
    CHECK_STATUS(state, LITER_LLM_STATUS_OK);
    liter_llm_result_free(state);
}

/* Begins the next call from the callback of the one before. Freeing a call cancels it: their handles are kept. */
struct Chain {
    LiterLlmEngine *engine;
    int left, begun;
    LiterLlmCall *calls[20];
};

static void go_on(void *context, LiterLlmResult *result) {
    struct Chain *chain = context;
    CHECK_STATUS(result, LITER_LLM_STATUS_OK);
    liter_llm_result_free(result);
    if (chain->begun < 20) {
        int at = chain->begun++;
        chain->calls[at] = submit(chain->engine, ECHO, go_on, chain);
    }
    __atomic_sub_fetch(&chain->left, 1, __ATOMIC_ACQ_REL);
}

int main(int count, char **words) {
    CHECK(count == 2);
    LiterLlmEngine *engine = engine_of(words[1]);
    struct Heard heard;

    /* A whole answer: one result. Its handle is of no use for waiting. */
    begin(&heard, engine, NULL);
    run(&heard, 0, ECHO);
    CHECK(heard.last == LITER_LLM_STATUS_OK && heard.batches == 0 && strcmp(heard.text, "told") == 0);
    CHECK_KIND(liter_llm_call_next(heard.call, 0), "invalid_request");
    liter_llm_call_free(heard.call);

    /* A stream: batches in order, then the end. On a busy machine all may have come before the first is handed over:
     * that happens, but not each time. */
    int most = 0;
    for (int round = 0; round < 20 && most <= 3; round++) {
        begin(&heard, engine, NULL);
        run(&heard, 1, LONG);
        CHECK(heard.last == LITER_LLM_STATUS_END && heard.batches > 0 && strlen(heard.text) > 300);
        most = heard.batches > most ? heard.batches : most;
        LiterLlmResult *folded = liter_llm_call_answer(heard.call);
        CHECK_STATUS(folded, LITER_LLM_STATUS_OK);
        CHECK(says(folded, heard.text));
        liter_llm_result_free(folded);
        liter_llm_call_free(heard.call);
    }
    CHECK(most > 3);

    /* An error. */
    begin(&heard, engine, NULL);
    run(&heard, 1, "{\"prompt\": 7}");
    CHECK(heard.last == LITER_LLM_STATUS_ERROR && strcmp(heard.kind, "invalid_request") == 0);
    liter_llm_call_free(heard.call);

    /* Cancelled or freed from inside. */
    begin(&heard, engine, cancel_own_call);
    run(&heard, 1, LONG);
    CHECK(heard.last == LITER_LLM_STATUS_ERROR && strcmp(heard.kind, "cancelled") == 0);
    liter_llm_call_free(heard.call);
    begin(&heard, engine, free_own_call);
    run(&heard, 1, LONG);
    CHECK(heard.last == LITER_LLM_STATUS_ERROR && strcmp(heard.kind, "cancelled") == 0 && heard.call == NULL);
    begin(&heard, engine, free_own_call);
    run(&heard, 0, ECHO);
    CHECK(heard.last == LITER_LLM_STATUS_OK && heard.call == NULL);

    /* Cancelled or freed from outside: the last result still comes. */
    for (int way = 0; way < 4; way++) {
        begin(&heard, engine, NULL);
        LiterLlmCall *call = (way % 2 ? stream : submit)(engine, HANG, hear, &heard);
        if (way < 2) {
            liter_llm_call_cancel(call);
            await(&heard);
            liter_llm_call_free(call);
        } else {
            liter_llm_call_free(call);
            await(&heard);
        }
        CHECK(heard.last == LITER_LLM_STATUS_ERROR && strcmp(heard.kind, "cancelled") == 0 && heard.lasts == 1);
    }

    begin(&heard, engine, try_everything);
    run(&heard, 0, ECHO);
    CHECK(heard.last == LITER_LLM_STATUS_OK);
    liter_llm_call_free(heard.call);

    /* One call begins the next. */
    struct Chain chain = {.engine = engine, .left = 20, .begun = 1};
    chain.calls[0] = submit(engine, ECHO, go_on, &chain);
    struct timespec pause = {0, 2000000};
    for (int round = 0; __atomic_load_n(&chain.left, __ATOMIC_ACQUIRE) > 0; round++) {
        CHECK(round < 20000 && nanosleep(&pause, NULL) == 0);
    }
    for (int at = 0; at < 20; at++) {
        liter_llm_call_free(chain.calls[at]);
    }

    liter_llm_engine_free(engine);
    puts("callbacks: all");
    return 0;
}
