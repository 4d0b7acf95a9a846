/* Holds a pod's namespaces open: sleeps until SIGINT or SIGTERM, and as PID 1 reaps orphaned processes. */
#include <signal.h>
#include <sys/wait.h>

int main(void) {
  sigset_t awaited;
  sigemptyset(&awaited);
  sigaddset(&awaited, SIGINT);
  sigaddset(&awaited, SIGTERM);
  sigaddset(&awaited, SIGCHLD);
  /* The kernel drops signals to PID 1 that have no handler, unless they are blocked: then they stay pending. */
  sigprocmask(SIG_BLOCK, &awaited, 0);

  for (;;) {
    int received;
    if (sigwait(&awaited, &received) != 0) continue;
    if (received != SIGCHLD) return 0;
    while (waitpid(-1, 0, WNOHANG) > 0) continue;
  }
}
