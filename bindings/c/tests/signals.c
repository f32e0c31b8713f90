/* Signals are the host's: none is delivered to a thread of the engine's, and a provider that closes its side while a
 * long request is being written raises no SIGPIPE. Argument: a configuration of such a provider. */

#include "check.h"
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

enum { LENGTH = 16 * 1024 * 1024 };

static pthread_t main_thread;
static volatile sig_atomic_t here, elsewhere;

static void seen(int number) {
    (void)number;
    if (pthread_equal(pthread_self(), main_thread)) {
        here++;
    } else {
        elsewhere++;
    }
}

int main(int count, char **words) {
    CHECK(count == 2);
    main_thread = pthread_self();
    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    struct sigaction action = {.sa_handler = seen};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);

    LiterLlmEngine *engine = engine_of(words[1]);
    char *request = malloc(LENGTH + 64);
    CHECK(request != NULL);
    char *end = request + sprintf(request, "{\"prompt\": \"");
    memset(end, 'x', LENGTH);
    strcpy(end + LENGTH, "\"}");
    for (int round = 0; round < 5; round++) {
        CHECK_KIND(generate(engine, request), "connection");
    }
    free(request);

    /* Held back here, it would go to any other thread that takes it. */
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    CHECK(pthread_sigmask(SIG_BLOCK, &one, NULL) == 0);
    CHECK(kill(getpid(), SIGUSR1) == 0);
    usleep(50000);
    CHECK(here == 0 && elsewhere == 0);
    CHECK(pthread_sigmask(SIG_UNBLOCK, &one, NULL) == 0);
    CHECK(here == 1 && elsewhere == 0);
    liter_llm_engine_free(engine);
    puts("signals: all");
    return 0;
}
