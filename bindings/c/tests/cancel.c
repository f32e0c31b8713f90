/* Calls that are stopped, in every way and at every time. Argument: a configuration of a provider whose streams are
 * slow, and whose model `hang` never answers. */

#include "check.h"
#include <pthread.h>
#include <unistd.h>

static const char LONG[] = "{\"prompt\": \"[tokens=20000]\"}";
static const char HANG[] = "{\"prompt\": \"hello\", \"model\": \"hang\"}";

static void *cancel_soon(void *call) {
    usleep(50000);
    liter_llm_call_cancel(call);
    return NULL;
}

int main(int count, char **words) {
    CHECK(count == 2);
    LiterLlmEngine *engine = engine_of(words[1]);

    /* In the middle of a stream, by the thread that reads. */
    LiterLlmCall *call = stream(engine, LONG, NULL, NULL);
    char text[4096];
    size_t used = 0;
    while (used < 20) {
        LiterLlmResult *next = liter_llm_call_next(call, -1);
        CHECK_STATUS(next, LITER_LLM_STATUS_CHUNKS);
        size_t length;
        const char *more = liter_llm_result_text(next, &length);
        CHECK(used + length < sizeof text);
        memcpy(text + used, more, length);
        used += length;
        liter_llm_result_free(next);
    }
    liter_llm_call_cancel(call);
    liter_llm_call_cancel(call);
    LiterLlmResult *next = liter_llm_call_next(call, -1);
    while (liter_llm_result_status(next) == LITER_LLM_STATUS_CHUNKS) {
        liter_llm_result_free(next);
        next = liter_llm_call_next(call, -1);
    }
    CHECK_KIND(next, "cancelled");
    LiterLlmResult *partial = liter_llm_call_answer(call);
    CHECK_STATUS(partial, LITER_LLM_STATUS_PENDING);
    CHECK(strncmp(liter_llm_result_text(partial, NULL), text, used) == 0);
    liter_llm_result_free(partial);
    liter_llm_call_free(call);

    /* While another thread waits: for a stream's next chunk, for its first, for a whole answer. */
    const char *requests[] = {LONG, HANG, HANG};
    for (int at = 0; at < 3; at++) {
        call = at < 2 ? stream(engine, requests[at], NULL, NULL) : submit(engine, requests[at], NULL, NULL);
        pthread_t other;
        CHECK(pthread_create(&other, NULL, cancel_soon, call) == 0);
        next = liter_llm_call_next(call, -1);
        while (liter_llm_result_status(next) == LITER_LLM_STATUS_CHUNKS) {
            liter_llm_result_free(next);
            next = liter_llm_call_next(call, -1);
        }
        CHECK_KIND(next, "cancelled");
        next = liter_llm_call_next(call, -1);
        CHECK_STATUS(next, LITER_LLM_STATUS_END);
        liter_llm_result_free(next);
        CHECK(pthread_join(other, NULL) == 0);
        liter_llm_call_free(call);
    }

    /* Freed in the middle. */
    call = stream(engine, LONG, NULL, NULL);
    next = liter_llm_call_next(call, -1);
    CHECK_STATUS(next, LITER_LLM_STATUS_CHUNKS);
    liter_llm_call_free(call);
    CHECK(liter_llm_result_text(next, NULL) != NULL);
    liter_llm_result_free(next);
    liter_llm_call_free(submit(engine, HANG, NULL, NULL));

    /* A call that is complete stays so. */
    call = submit(engine, "{\"prompt\": \"[echo] done\"}", NULL, NULL);
    LiterLlmResult *state;
    for (int round = 0;; round++) {
        state = liter_llm_engine_ask(engine, "state", NULL, 0);
        int idle = json_has(state, "\"in_flight\":0");
        liter_llm_result_free(state);
        if (idle && round > 100) {
            break;
        }
        usleep(2000);
        CHECK(round < 10000);
    }
    liter_llm_call_cancel(call);
    LiterLlmResult *answer = liter_llm_call_next(call, 0);
    CHECK_STATUS(answer, LITER_LLM_STATUS_OK);
    CHECK(says(answer, "done"));
    liter_llm_result_free(answer);
    liter_llm_call_free(call);

    liter_llm_engine_free(engine);
    puts("cancel: all");
    return 0;
}
