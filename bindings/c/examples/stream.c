/* Asks a question and prints the answer as it comes: `stream "Why is the sky blue?"`. The key comes from
 * OPENAI_API_KEY. Ends with 0 after a whole answer, 1 after an error, 2 when there is nothing to ask. */

#include <liter_llm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char CONFIG[] = "{\"deployment\": {\"provider\": \"openai\", \"model\": \"gpt-4o-mini\"}}";

/* {"prompt": "..."} around a text; NULL when there is no memory. To be freed. */
static char *request_of(const char *text) {
    char *json = malloc(6 * strlen(text) + sizeof "{\"prompt\": \"\"}");
    if (json == NULL) {
        return NULL;
    }
    char *end = json + sprintf(json, "{\"prompt\": \"");
    for (; *text != '\0'; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte == '"' || byte == '\\') {
            *end++ = '\\';
            *end++ = (char)byte;
        } else if (byte < 0x20) {
            end += sprintf(end, "\\u%04x", byte);
        } else {
            *end++ = (char)byte;
        }
    }
    strcpy(end, "\"}");
    return json;
}

/* Says what went wrong, and frees it. */
static int failed(LiterLlmResult *error) {
    fprintf(stderr, "\n%s: %s\n", liter_llm_result_kind(error), liter_llm_result_text(error, NULL));
    liter_llm_result_free(error);
    return 1;
}

/* Prints what comes until the end or an error. */
static int print_all(LiterLlmCall *call) {
    for (;;) {
        LiterLlmResult *next = liter_llm_call_next(call, -1);
        switch (liter_llm_result_status(next)) {
        case LITER_LLM_STATUS_CHUNKS: {
            size_t length;
            const char *text = liter_llm_result_text(next, &length);
            fwrite(text, 1, length, stdout);
            fflush(stdout);
            liter_llm_result_free(next);
            break;
        }
        case LITER_LLM_STATUS_END:
            putchar('\n');
            liter_llm_result_free(next);
            return 0;
        default:
            return failed(next);
        }
    }
}

int main(int count, char **words) {
    if (count != 2) {
        fprintf(stderr, "usage: %s QUESTION\n", words[0]);
        return 2;
    }
    LiterLlmResult *error;
    LiterLlmEngine *engine = liter_llm_engine_new(CONFIG, strlen(CONFIG), &error);
    if (engine == NULL) {
        return failed(error);
    }
    int status = 1;
    char *request = request_of(words[1]);
    LiterLlmCall *call = request == NULL ? NULL : liter_llm_stream(engine, request, strlen(request), NULL, NULL);
    if (call == NULL) {
        fprintf(stderr, "no memory or no threads\n");
    } else {
        status = print_all(call);
    }
    liter_llm_call_free(call);
    free(request);
    liter_llm_engine_free(engine);
    return status;
}
