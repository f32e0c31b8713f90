/* Callbacks that come before the function that began their call has returned. Argument: a configuration.
 *
 * Chance would show that seldom. So the two system calls by which a thread of the engine is woken are this program's own:
 * on the thread that begins a call they do not return before the last callback has run. */

#include "check.h"
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <time.h>
#include <unistd.h>

static const char ECHO[] = "{\"prompt\": \"[echo] told\"}";
static const char LONG[] = "{\"prompt\": \"[tokens=40]\"}";
static const char WRONG[] = "{\"prompt\": 7}";

/* What a callback is given; it ends it. */
struct Heard {
    pthread_mutex_t lock;
    LiterLlmCall *call; /* not there yet when the callback runs early */
    LiterLlmStatus last;
};

static int over; /* how many calls have ended */
static _Thread_local int wanted; /* the thread that begins a call waits for so many */
static _Thread_local int early;

static void nap(void) {
    int before = errno;
    struct timespec pause = {0, 1000000};
    nanosleep(&pause, NULL);
    errno = before;
}

static int reached(int wanted_now) {
    return __atomic_load_n(&over, __ATOMIC_ACQUIRE) >= wanted_now;
}

/* A thread may have been woken: lets it go on to the call's end, ten seconds at most. */
static void let_them(void) {
    for (int round = 0; wanted > 0 && !early && round < 10000; round++) {
        early = reached(wanted);
        nap();
    }
}

long syscall(long number, ...) {
    static long (*real)(long, ...);
    if (real == NULL) {
        *(void **)&real = dlsym(RTLD_NEXT, "syscall");
    }
    va_list list;
    long words[6];
    va_start(list, number);
    for (int at = 0; at < 6; at++) {
        words[at] = va_arg(list, long);
    }
    va_end(list);
    long result = real(number, words[0], words[1], words[2], words[3], words[4], words[5]);
    let_them();
    return result;
}

ssize_t write(int file, const void *bytes, size_t length) {
    static ssize_t (*real)(int, const void *, size_t);
    if (real == NULL) {
        *(void **)&real = dlsym(RTLD_NEXT, "write");
    }
    ssize_t result = real(file, bytes, length);
    let_them();
    return result;
}

/* Uses what it was given, and at the last result gives it up: nobody needs the handle for that. */
static void hear(void *context, LiterLlmResult *result) {
    struct Heard **given = context;
    struct Heard *heard = *given;
    LiterLlmStatus status = liter_llm_result_status(result);
    CHECK(status != LITER_LLM_STATUS_PENDING && heard->last == LITER_LLM_STATUS_PENDING);
    liter_llm_result_free(result);
    if (status == LITER_LLM_STATUS_CHUNKS) {
        return;
    }
    CHECK(pthread_mutex_lock(&heard->lock) == 0);
    heard->last = status;
    CHECK(heard->call == NULL);
    CHECK(pthread_mutex_unlock(&heard->lock) == 0);
    free(given);
    __atomic_add_fetch(&over, 1, __ATOMIC_ACQ_REL);
}

typedef LiterLlmCall *(*Begin)(LiterLlmEngine *, const char *, LiterLlmCallback, void *);

/* Begins a call whose callbacks come early, and uses its handle after them. Whether they came early. */
static int try(LiterLlmEngine *engine, Begin begin, const char *request, LiterLlmStatus expected, int freed) {
    struct Heard heard = {.lock = PTHREAD_MUTEX_INITIALIZER, .last = LITER_LLM_STATUS_PENDING};
    struct Heard **context = malloc(sizeof *context);
    CHECK(context != NULL);
    *context = &heard;
    wanted = __atomic_load_n(&over, __ATOMIC_ACQUIRE) + 1;
    early = 0;
    LiterLlmCall *call = begin(engine, request, hear, context);
    int before = reached(wanted);
    /* A call that was not early is over now. */
    for (int round = 0; !reached(wanted); round++) {
        CHECK(round < 60000);
        nap();
    }
    wanted = 0;
    CHECK(pthread_mutex_lock(&heard.lock) == 0);
    heard.call = call;
    CHECK(heard.last == expected);
    CHECK(pthread_mutex_unlock(&heard.lock) == 0);
    if (!freed) {
        CHECK_KIND(liter_llm_call_next(call, 0), "invalid_request");
        if (expected == LITER_LLM_STATUS_END) {
            LiterLlmResult *answer = liter_llm_call_answer(call);
            CHECK_STATUS(answer, LITER_LLM_STATUS_OK);
            liter_llm_result_free(answer);
        }
        liter_llm_call_cancel(call);
    }
    liter_llm_call_free(call);
    CHECK(heard.last == expected);
    return before;
}

int main(int count, char **words) {
    CHECK(count == 2);
    LiterLlmEngine *engine = engine_of(words[1]);
    int came_early[3] = {0, 0, 0};
    for (int round = 0; round < 8; round++) {
        came_early[0] += try(engine, submit, WRONG, LITER_LLM_STATUS_ERROR, round % 2);
        came_early[1] += try(engine, submit, ECHO, LITER_LLM_STATUS_OK, round % 2);
        came_early[2] += try(engine, stream, LONG, LITER_LLM_STATUS_END, round % 2);
        /* Threads of the engine that still look for work are not woken: they shall be at rest. */
        for (int at = 0; at < 20; at++) {
            nap();
        }
    }
    for (int at = 0; at < 3; at++) {
        CHECK(came_early[at] > 0);
    }
    liter_llm_engine_free(engine);
    puts("early: all");
    return 0;
}
