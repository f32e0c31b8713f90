/* NULL everywhere, lengths that cannot be, and every order of freeing. Argument: a configuration. */

#include "check.h"
#include <pthread.h>

static const char REQUEST[] = "{\"prompt\": \"[echo] here\"}";

static void last_error(void *context, LiterLlmResult *result) {
    LiterLlmResult **slot = context;
    __atomic_store_n(slot, result, __ATOMIC_RELEASE);
}

static LiterLlmResult *await(LiterLlmResult **slot) {
    LiterLlmResult *result;
    while ((result = __atomic_load_n(slot, __ATOMIC_ACQUIRE)) == NULL) {
        sched_yield();
    }
    return result;
}

int main(int count, char **words) {
    CHECK(count == 2);
    liter_llm_engine_free(NULL);
    liter_llm_call_free(NULL);
    liter_llm_call_cancel(NULL);
    liter_llm_result_free(NULL);
    liter_llm_records_free(NULL);
    liter_llm_records_close(NULL);
    CHECK(liter_llm_records_dropped(NULL) == 0);
    liter_llm_engine_keep_records(NULL, 1);

    size_t length = 7;
    CHECK(liter_llm_result_status(NULL) == LITER_LLM_STATUS_ERROR);
    CHECK(liter_llm_result_json(NULL, &length) == NULL && length == 0);
    CHECK(liter_llm_result_raw(NULL, &length) == NULL && length == 0);
    CHECK(strcmp(liter_llm_result_text(NULL, &length), "") == 0 && length == 0);
    CHECK(liter_llm_result_kind(NULL) == NULL);
    CHECK(liter_llm_result_json(NULL, NULL) == NULL && liter_llm_result_raw(NULL, NULL) == NULL);

    LiterLlmResult *error;
    CHECK(liter_llm_engine_new(NULL, 0, &error) == NULL);
    CHECK_KIND(error, "config");
    CHECK(liter_llm_engine_new(NULL, 5, &error) == NULL);
    CHECK_KIND(error, "invalid_request");
    CHECK(liter_llm_engine_new("{}", 2, NULL) == NULL);
    CHECK(liter_llm_engine_new("{}", SIZE_MAX, &error) == NULL);
    CHECK_KIND(error, "invalid_request");

    LiterLlmEngine *engine = engine_of(words[1]);
    CHECK_KIND(liter_llm_generate(NULL, REQUEST, strlen(REQUEST)), "invalid_request");
    CHECK_KIND(liter_llm_generate(engine, NULL, 0), "invalid_request");
    CHECK_KIND(liter_llm_generate(engine, NULL, 9), "invalid_request");
    CHECK_KIND(liter_llm_generate(engine, REQUEST, 9), "invalid_request");
    CHECK_KIND(liter_llm_generate(engine, "\xff\xfe", 2), "invalid_request");
    CHECK_KIND(liter_llm_engine_ask(NULL, "state", NULL, 0), "invalid_request");
    CHECK_KIND(liter_llm_engine_ask(engine, NULL, NULL, 0), "invalid_request");
    CHECK_KIND(liter_llm_engine_ask(engine, "explain", NULL, 0), "invalid_request");
    CHECK_KIND(liter_llm_engine_reload(NULL, "{}", 2), "invalid_request");
    CHECK_KIND(liter_llm_engine_reload(engine, NULL, 2), "invalid_request");
    CHECK_KIND(liter_llm_call_next(NULL, 0), "invalid_request");
    CHECK_KIND(liter_llm_call_answer(NULL), "invalid_request");
    CHECK_KIND(liter_llm_call_record(NULL), "invalid_request");
    CHECK_KIND(liter_llm_records_next(NULL, 0), "invalid_request");
    CHECK(liter_llm_engine_on_call(NULL, 1, NULL, NULL, &error) == NULL);
    CHECK_KIND(error, "invalid_request");
    CHECK(liter_llm_engine_on_call(NULL, 1, last_error, &error, NULL) == NULL);
    CHECK_KIND(liter_llm_engine_ask(engine, "metrics", NULL, 5), "invalid_request");

    /* A call with wrong arguments fails as a call does, in both ways of hearing of it. */
    struct {
        LiterLlmEngine *engine;
        const char *request;
        size_t length;
    } wrong[] = {{NULL, REQUEST, strlen(REQUEST)}, {engine, NULL, 0}, {engine, NULL, 4}, {NULL, NULL, 4}};
    for (size_t at = 0; at < sizeof wrong / sizeof *wrong; at++) {
        for (int streamed = 0; streamed < 2; streamed++) {
            LiterLlmCall *(*begin)(const LiterLlmEngine *, const char *, size_t, LiterLlmCallback, void *) =
                streamed ? liter_llm_stream : liter_llm_submit;
            LiterLlmCall *call = begin(wrong[at].engine, wrong[at].request, wrong[at].length, NULL, NULL);
            CHECK_KIND(liter_llm_call_next(call, -1), "invalid_request");
            liter_llm_call_free(call);
            LiterLlmResult *told = NULL;
            call = begin(wrong[at].engine, wrong[at].request, wrong[at].length, last_error, &told);
            CHECK_KIND(await(&told), "invalid_request");
            liter_llm_call_free(call);
        }
    }

    /* Engine, then result, then call; the call is complete. */
    LiterLlmCall *call = submit(engine, REQUEST, NULL, NULL);
    LiterLlmResult *answer = liter_llm_call_next(call, -1);
    liter_llm_engine_free(engine);
    CHECK(says(answer, "here"));
    liter_llm_result_free(answer);
    liter_llm_call_free(call);

    /* The engine first, while a call and a stream are under way: both end well. Then call before result. */
    engine = engine_of(words[1]);
    call = submit(engine, REQUEST, NULL, NULL);
    LiterLlmCall *other = stream(engine, REQUEST, NULL, NULL);
    liter_llm_engine_free(engine);
    answer = liter_llm_call_next(call, -1);
    liter_llm_call_free(call);
    CHECK(says(answer, "here"));
    char text[64];
    read_all(other, text, sizeof text);
    CHECK(strcmp(text, "here") == 0);
    LiterLlmResult *folded = liter_llm_call_answer(other);
    liter_llm_call_free(other);
    CHECK(says(folded, "here"));
    liter_llm_result_free(folded);
    liter_llm_result_free(answer);

    /* Free at once, unread. */
    engine = engine_of(words[1]);
    LiterLlmRecords *records = liter_llm_engine_on_call(engine, 0, NULL, NULL, NULL);
    LiterLlmResult *end = NULL;
    LiterLlmRecords *told = liter_llm_engine_on_call(engine, 0, last_error, &end, NULL);
    CHECK(records != NULL && told != NULL);
    liter_llm_records_free(told);
    answer = await(&end);
    CHECK_STATUS(answer, LITER_LLM_STATUS_END);
    liter_llm_result_free(answer);
    liter_llm_engine_keep_records(engine, 1);
    for (int round = 0; round < 20; round++) {
        liter_llm_call_free(submit(engine, REQUEST, NULL, NULL));
        liter_llm_call_free(stream(engine, REQUEST, NULL, NULL));
    }
    liter_llm_engine_free(engine);
    liter_llm_records_free(records);
    puts("null: all");
    return 0;
}
