/* Every function of the header but those for records (records.c), once as it is meant. Arguments: a configuration, another
 * one to reload. */

#include "check.h"
#include <unistd.h>

static const char ECHO[] = "{\"prompt\": \"[echo] one two \\u00e9\"}";
static const char TEXT[] = "one two \xc3\xa9";

int main(int count, char **words) {
    CHECK(count == 3);
    const char *version = liter_llm_version();
    CHECK(version[0] >= '0' && version[0] <= '9' && strchr(version, '.') != NULL);

    LiterLlmResult *error = NULL;
    const char *wrong = "{\"deployment\": {\"provider\": \"opnai\", \"model\": \"m\"}}";
    CHECK(liter_llm_engine_new(wrong, strlen(wrong), &error) == NULL);
    CHECK(error != NULL && strstr(liter_llm_result_text(error, NULL), "opnai") != NULL);
    CHECK_KIND(error, "config");
    LiterLlmEngine *engine = engine_of(words[1]);

    /* A whole answer, and its parts. */
    LiterLlmResult *answer = generate(engine, ECHO);
    CHECK_STATUS(answer, LITER_LLM_STATUS_OK);
    CHECK(liter_llm_result_kind(answer) == NULL);
    size_t length = 0, raw_length = 0, text_length = 0;
    const char *json = liter_llm_result_json(answer, &length);
    CHECK(json[0] == '{' && json[length - 1] == '}' && json[length] == '\0' && strlen(json) == length);
    CHECK(json_has(answer, "\"finish_reason\":\"stop\"") && json_has(answer, "\"usage\":{"));
    const uint8_t *raw = liter_llm_result_raw(answer, &raw_length);
    CHECK(raw != NULL && raw_length > 2 && raw[0] == '{' && raw[raw_length - 1] == '}');
    CHECK(says(answer, TEXT) && liter_llm_result_text(answer, &text_length) != NULL);
    CHECK(text_length == strlen(TEXT));

    /* The same, begun and polled. */
    LiterLlmCall *call = submit(engine, ECHO, NULL, NULL);
    LiterLlmResult *polled = liter_llm_call_next(call, 0);
    for (int round = 0; liter_llm_result_status(polled) == LITER_LLM_STATUS_PENDING && round < 10000; round++) {
        CHECK(liter_llm_result_json(polled, &length) == NULL && length == 0);
        liter_llm_result_free(polled);
        usleep(1000);
        polled = liter_llm_call_next(call, 0);
    }
    CHECK_STATUS(polled, LITER_LLM_STATUS_OK);
    CHECK(says(polled, TEXT));
    liter_llm_result_free(polled);
    polled = liter_llm_call_next(call, -1);
    CHECK_STATUS(polled, LITER_LLM_STATUS_END);
    liter_llm_result_free(polled);
    CHECK_KIND(liter_llm_call_answer(call), "invalid_request");
    liter_llm_call_cancel(call);
    liter_llm_call_free(call);

    /* The same, streamed: put together it is the whole answer. */
    char text[256];
    call = stream(engine, ECHO, NULL, NULL);
    read_all(call, text, sizeof text);
    CHECK(strcmp(text, TEXT) == 0);
    LiterLlmResult *folded = liter_llm_call_answer(call);
    CHECK_STATUS(folded, LITER_LLM_STATUS_OK);
    CHECK(says(folded, TEXT) && json_has(folded, "\"finish_reason\":\"stop\"") && json_has(folded, "\"usage\":{"));
    liter_llm_result_free(folded);
    liter_llm_call_free(call);

    /* A time limit that passes: the call goes on. */
    call = submit(engine, "{\"prompt\": \"[echo] slow\", \"model\": \"slow\"}", NULL, NULL);
    LiterLlmResult *early = liter_llm_call_next(call, 20);
    CHECK_STATUS(early, LITER_LLM_STATUS_PENDING);
    liter_llm_result_free(early);
    LiterLlmResult *late = liter_llm_call_next(call, 30000);
    CHECK_STATUS(late, LITER_LLM_STATUS_OK);
    CHECK(says(late, "slow"));
    liter_llm_result_free(late);
    liter_llm_call_free(call);

    /* Questions. */
    struct {
        const char *question, *request, *part;
    } questions[] = {
        {"describe", NULL, "\"model\":\"first\""},
        {"state", NULL, "\"circuit\":\"closed\""},
        {"figures", NULL, "\"deployments\""},
        {"spend", NULL, "{"},
        {"canary", NULL, "null"},
        {"mirror", NULL, "null"},
        {"explain", ECHO, "\"candidates\""},
        {"explain_stream", ECHO, "\"candidates\""},
        {"validate", ECHO, "null"},
        {"notices", NULL, "[]"},
        {"metrics", NULL, "liter_llm_circuit_state"},
    };
    for (size_t at = 0; at < sizeof questions / sizeof *questions; at++) {
        const char *request = questions[at].request;
        LiterLlmResult *told =
            liter_llm_engine_ask(engine, questions[at].question, request, request == NULL ? 0 : strlen(request));
        CHECK_STATUS(told, LITER_LLM_STATUS_OK);
        if (!json_has(told, questions[at].part)) {
            fprintf(stderr, "%s: %s\n", questions[at].question, liter_llm_result_json(told, NULL));
            return 1;
        }
        CHECK(strstr(liter_llm_result_json(told, NULL), "sk-secret") == NULL);
        liter_llm_result_free(told);
    }
    CHECK_KIND(liter_llm_engine_ask(engine, "weather", NULL, 0), "invalid_request");
    CHECK_KIND(liter_llm_engine_ask(engine, "validate", "{}", 2), "invalid_request");

    /* Another configuration; one that cannot work changes nothing. */
    CHECK_KIND(liter_llm_engine_reload(engine, "{}", 2), "config");
    LiterLlmResult *reloaded = liter_llm_engine_reload(engine, words[2], strlen(words[2]));
    CHECK_STATUS(reloaded, LITER_LLM_STATUS_OK);
    liter_llm_result_free(reloaded);
    LiterLlmResult *described = liter_llm_engine_ask(engine, "describe", NULL, 0);
    CHECK(json_has(described, "\"model\":\"second\""));
    liter_llm_result_free(described);

    liter_llm_engine_free(engine);
    /* What was read from a result lives as long as the result. */
    CHECK(says(answer, TEXT) && raw[0] == '{' && json[0] == '{');
    liter_llm_result_free(answer);
    puts("functions: all");
    return 0;
}
