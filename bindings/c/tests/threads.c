/* One engine, four threads, every way of calling. Arguments: a configuration, the number of rounds of each thread. */

#include "check.h"
#include <pthread.h>

enum { THREADS = 4 };

struct Worker {
    pthread_t thread;
    LiterLlmEngine *engine;
    int number, rounds, told;
};

static void count_one(void *context, LiterLlmResult *result) {
    struct Worker *worker = context;
    if (liter_llm_result_status(result) == LITER_LLM_STATUS_OK) {
        __atomic_add_fetch(&worker->told, 1, __ATOMIC_ACQ_REL);
    }
    liter_llm_result_free(result);
}

static void *work(void *context) {
    struct Worker *worker = context;
    LiterLlmCall **told = calloc((size_t)worker->rounds, sizeof *told);
    CHECK(told != NULL);
    for (int round = 0; round < worker->rounds; round++) {
        char request[80], wanted[40], text[80];
        snprintf(wanted, sizeof wanted, "thread %d round %d", worker->number, round);
        snprintf(request, sizeof request, "{\"prompt\": \"[echo] %s\"}", wanted);

        LiterLlmResult *answer = generate(worker->engine, request);
        CHECK_STATUS(answer, LITER_LLM_STATUS_OK);
        CHECK(says(answer, wanted));
        liter_llm_result_free(answer);

        LiterLlmCall *whole = submit(worker->engine, request, NULL, NULL);
        LiterLlmCall *pieces = stream(worker->engine, request, NULL, NULL);
        told[round] = submit(worker->engine, request, count_one, worker);
        LiterLlmCall *dropped = stream(worker->engine, request, NULL, NULL);
        read_all(pieces, text, sizeof text);
        CHECK(strcmp(text, wanted) == 0);
        answer = liter_llm_call_next(whole, -1);
        CHECK(says(answer, wanted));
        liter_llm_result_free(answer);
        liter_llm_call_free(pieces);
        liter_llm_call_free(whole);
        liter_llm_call_free(dropped);

        LiterLlmResult *state = liter_llm_engine_ask(worker->engine, "state", NULL, 0);
        CHECK_STATUS(state, LITER_LLM_STATUS_OK);
        liter_llm_result_free(state);
        LiterLlmResult *metrics = liter_llm_engine_ask(worker->engine, "metrics", NULL, 0);
        CHECK_STATUS(metrics, LITER_LLM_STATUS_OK);
        liter_llm_result_free(metrics);
    }
    while (__atomic_load_n(&worker->told, __ATOMIC_ACQUIRE) < worker->rounds) {
        sched_yield();
    }
    for (int round = 0; round < worker->rounds; round++) {
        liter_llm_call_free(told[round]);
    }
    free(told);
    return NULL;
}

/* Counts the records of whole answers, then the end. */
static void count_record(void *context, LiterLlmResult *result) {
    int *counts = context;
    int at = liter_llm_result_status(result) == LITER_LLM_STATUS_END ? 1 : 0;
    int counts_too = at == 1 || json_has(result, "\"streamed\":false");
    liter_llm_result_free(result);
    if (counts_too) {
        __atomic_add_fetch(&counts[at], 1, __ATOMIC_ACQ_REL);
    }
}

int main(int count, char **words) {
    CHECK(count == 3);
    LiterLlmEngine *engine = engine_of(words[1]);
    int records[2] = {0, 0};
    LiterLlmRecords *recording = liter_llm_engine_on_call(engine, 100000, count_record, records, NULL);
    CHECK(recording != NULL);
    struct Worker workers[THREADS];
    int rounds = atoi(words[2]), told = 0;
    for (int at = 0; at < THREADS; at++) {
        workers[at] = (struct Worker){.engine = engine, .number = at, .rounds = rounds};
        CHECK(pthread_create(&workers[at].thread, NULL, work, &workers[at]) == 0);
    }
    for (int at = 0; at < THREADS; at++) {
        CHECK(pthread_join(workers[at].thread, NULL) == 0);
        told += workers[at].told;
    }
    liter_llm_records_free(recording);
    while (__atomic_load_n(&records[1], __ATOMIC_ACQUIRE) == 0) {
        sched_yield();
    }
    CHECK(records[0] == 3 * THREADS * rounds);
    liter_llm_engine_free(engine);
    printf("threads: %d answers each way\n", told);
    return 0;
}
