/* A child made by fork() goes on with its parent's engine, and leaves its parent's calls alone. Argument: a
 * configuration of a provider whose streams are slow. */

#include "check.h"
#include <sys/wait.h>
#include <unistd.h>

static const char ECHO[] = "{\"prompt\": \"[echo] alive\"}";

static void ask(LiterLlmEngine *engine) {
    LiterLlmResult *answer = generate(engine, ECHO);
    CHECK_STATUS(answer, LITER_LLM_STATUS_OK);
    CHECK(says(answer, "alive"));
    liter_llm_result_free(answer);
}

/* The metrics count so many calls. */
static void counted(LiterLlmEngine *engine, int wanted) {
    LiterLlmResult *told = liter_llm_engine_ask(engine, "metrics", NULL, 0);
    CHECK_STATUS(told, LITER_LLM_STATUS_OK);
    const char *line = strstr(liter_llm_result_text(told, NULL), "\nllm_request_latency_ms_count{");
    CHECK((line == NULL) == (wanted == 0));
    if (line != NULL) {
        CHECK(atoi(strchr(line, '}') + 1) == wanted);
    }
    liter_llm_result_free(told);
}

static void expect_record(LiterLlmRecords *records) {
    LiterLlmResult *record = liter_llm_records_next(records, 30000);
    CHECK_STATUS(record, LITER_LLM_STATUS_OK);
    CHECK(json_has(record, "\"operation\":\"chat\""));
    liter_llm_result_free(record);
}

int main(int count, char **words) {
    CHECK(count == 2);
    LiterLlmEngine *engine = engine_of(words[1]);
    counted(engine, 0);
    LiterLlmRecords *records = liter_llm_engine_on_call(engine, 10, NULL, NULL, NULL);
    CHECK(records != NULL);
    ask(engine);
    counted(engine, 1);
    LiterLlmCall *call = stream(engine, "{\"prompt\": \"[tokens=200]\"}", NULL, NULL);
    LiterLlmResult *first = liter_llm_call_next(call, -1);
    CHECK_STATUS(first, LITER_LLM_STATUS_CHUNKS);
    liter_llm_result_free(first);

    for (int child = 0; child < 3; child++) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            alarm(60);
            CHECK_KIND(liter_llm_call_next(call, -1), "invalid_request");
            CHECK_KIND(liter_llm_call_answer(call), "invalid_request");
            liter_llm_call_cancel(call);
            liter_llm_call_free(call);
            CHECK_KIND(liter_llm_records_next(records, -1), "invalid_request");
            liter_llm_records_close(records);
            liter_llm_records_free(records);
            if (child != 1) {
                /* It counts its own calls, and records them. */
                LiterLlmRecords *own = liter_llm_engine_on_call(engine, 10, NULL, NULL, NULL);
                CHECK(own != NULL);
                ask(engine);
                ask(engine);
                expect_record(own);
                expect_record(own);
                liter_llm_records_free(own);
                counted(engine, 2);
            }
            /* The second child frees an engine that it never used. */
            liter_llm_engine_free(engine);
            _exit(0);
        }
        int status;
        CHECK(waitpid(pid, &status, 0) == pid);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }

    /* The parent's stream was not touched, nor were its connections. */
    char text[4096];
    read_all(call, text, sizeof text);
    liter_llm_call_free(call);
    ask(engine);
    counted(engine, 3);
    for (int round = 0; round < 3; round++) {
        expect_record(records);
    }
    CHECK(liter_llm_records_dropped(records) == 0);
    liter_llm_records_free(records);
    liter_llm_engine_free(engine);
    puts("fork: all");
    return 0;
}
