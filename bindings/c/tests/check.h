/* What the test programs share: a check that ends the program, and short ways to call the engine. */

#ifndef CHECK_H
#define CHECK_H

#include <liter_llm.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                              \
    do {                                                                                                              \
        if (!(condition)) {                                                                                           \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                                   \
            exit(1);                                                                                                  \
        }                                                                                                             \
    } while (0)

/* As CHECK(status == wanted), with the words of the error that came instead. */
#define CHECK_STATUS(result, wanted)                                                                                  \
    do {                                                                                                              \
        if (liter_llm_result_status(result) != (wanted)) {                                                            \
            fprintf(stderr, "%s:%d: %s is %d, not %s: %s\n", __FILE__, __LINE__, #result,                             \
                    (int)liter_llm_result_status(result), #wanted, liter_llm_result_text(result, NULL));              \
            exit(1);                                                                                                  \
        }                                                                                                             \
    } while (0)

/* An error of this kind; frees it. */
#define CHECK_KIND(made, wanted)                                                                                      \
    do {                                                                                                              \
        LiterLlmResult *result_ = (made);                                                                             \
        CHECK_STATUS(result_, LITER_LLM_STATUS_ERROR);                                                                \
        if (strcmp(liter_llm_result_kind(result_), (wanted)) != 0) {                                                  \
            fprintf(stderr, "%s:%d: the kind is %s, not %s: %s\n", __FILE__, __LINE__,                                \
                    liter_llm_result_kind(result_), (wanted), liter_llm_result_text(result_, NULL));                  \
            exit(1);                                                                                                  \
        }                                                                                                             \
        liter_llm_result_free(result_);                                                                               \
    } while (0)

static inline LiterLlmEngine *engine_of(const char *config) {
    LiterLlmResult *error;
    LiterLlmEngine *engine = liter_llm_engine_new(config, strlen(config), &error);
    if (engine == NULL) {
        fprintf(stderr, "no engine: %s\n", liter_llm_result_text(error, NULL));
        exit(1);
    }
    CHECK(error == NULL);
    return engine;
}

static inline LiterLlmResult *generate(LiterLlmEngine *engine, const char *request) {
    return liter_llm_generate(engine, request, strlen(request));
}

static inline LiterLlmCall *submit(LiterLlmEngine *engine, const char *request, LiterLlmCallback callback, void *context) {
    LiterLlmCall *call = liter_llm_submit(engine, request, strlen(request), callback, context);
    CHECK(call != NULL);
    return call;
}

static inline LiterLlmCall *stream(LiterLlmEngine *engine, const char *request, LiterLlmCallback callback, void *context) {
    LiterLlmCall *call = liter_llm_stream(engine, request, strlen(request), callback, context);
    CHECK(call != NULL);
    return call;
}

static inline int json_has(const LiterLlmResult *result, const char *part) {
    const char *json = liter_llm_result_json(result, NULL);
    return json != NULL && strstr(json, part) != NULL;
}

static inline int says(const LiterLlmResult *result, const char *text) {
    return strcmp(liter_llm_result_text(result, NULL), text) == 0;
}

/* Reads a stream to its end, with its text, and frees what came. */
static inline void read_all(LiterLlmCall *call, char *text, size_t room) {
    size_t used = 0;
    for (;;) {
        LiterLlmResult *next = liter_llm_call_next(call, -1);
        if (liter_llm_result_status(next) == LITER_LLM_STATUS_END) {
            liter_llm_result_free(next);
            text[used] = '\0';
            return;
        }
        CHECK_STATUS(next, LITER_LLM_STATUS_CHUNKS);
        size_t length;
        const char *more = liter_llm_result_text(next, &length);
        CHECK(used + length < room);
        memcpy(text + used, more, length);
        used += length;
        liter_llm_result_free(next);
    }
}

#endif
