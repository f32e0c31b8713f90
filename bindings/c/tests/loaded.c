/* The library is loaded at run time, used, closed, loaded again. Arguments: its path, a configuration. */

#include "check.h"
#include <dlfcn.h>
#include <unistd.h>

static void *symbol(void *library, const char *name) {
    void *found = dlsym(library, name);
    CHECK(found != NULL);
    return found;
}

int main(int count, char **words) {
    CHECK(count == 3);
    for (int round = 0; round < 3; round++) {
        void *library = dlopen(words[1], RTLD_NOW | RTLD_LOCAL);
        if (library == NULL) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
        LiterLlmEngine *(*engine_new)(const char *, size_t, LiterLlmResult **);
        LiterLlmResult *(*ask)(const LiterLlmEngine *, const char *, size_t);
        LiterLlmStatus (*status)(const LiterLlmResult *);
        void (*result_free)(LiterLlmResult *);
        void (*engine_free)(LiterLlmEngine *);
        *(void **)&engine_new = symbol(library, "liter_llm_engine_new");
        *(void **)&ask = symbol(library, "liter_llm_generate");
        *(void **)&status = symbol(library, "liter_llm_result_status");
        *(void **)&result_free = symbol(library, "liter_llm_result_free");
        *(void **)&engine_free = symbol(library, "liter_llm_engine_free");
        LiterLlmEngine *engine = engine_new(words[2], strlen(words[2]), NULL);
        CHECK(engine != NULL);
        LiterLlmResult *answer = ask(engine, "{\"prompt\": \"[echo] hello\"}", 26);
        CHECK(status(answer) == LITER_LLM_STATUS_OK);
        result_free(answer);
        engine_free(engine);
        CHECK(dlclose(library) == 0);
        /* Its threads are still there, and so must be what they run. */
        usleep(20000);
    }
    puts("loaded: all");
    return 0;
}
