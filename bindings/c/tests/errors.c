/* Errors by kind, whole and streamed. Arguments: a configuration, then pairs of a kind and a request that fails so. */

#include "check.h"

int main(int count, char **words) {
    CHECK(count >= 4 && count % 2 == 0);
    LiterLlmEngine *engine = engine_of(words[1]);
    int seen = 0;
    for (int at = 2; at < count; at += 2, seen++) {
        const char *kind = words[at], *request = words[at + 1];
        LiterLlmResult *whole = generate(engine, request);
        CHECK_STATUS(whole, LITER_LLM_STATUS_ERROR);
        size_t length;
        CHECK(liter_llm_result_text(whole, &length) != NULL && length > 0);
        CHECK(json_has(whole, "\"retryable\":") && json_has(whole, "\"detail\":{"));
        CHECK(liter_llm_result_raw(whole, NULL) == NULL);
        CHECK_KIND(whole, kind);

        LiterLlmCall *call = stream(engine, request, NULL, NULL);
        LiterLlmResult *next = liter_llm_call_next(call, -1);
        while (liter_llm_result_status(next) == LITER_LLM_STATUS_CHUNKS) {
            liter_llm_result_free(next);
            next = liter_llm_call_next(call, -1);
        }
        CHECK_KIND(next, kind);
        LiterLlmResult *partial = liter_llm_call_answer(call);
        CHECK_STATUS(partial, LITER_LLM_STATUS_PENDING);
        liter_llm_result_free(partial);
        liter_llm_call_free(call);
    }
    liter_llm_engine_free(engine);
    printf("errors: %d\n", seen);
    return 0;
}
