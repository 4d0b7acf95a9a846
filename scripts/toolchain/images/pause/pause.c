/* Holds a pod's namespaces open: sleeps until it is told to end, and reaps the children it inherits as PID 1. */
#include <signal.h>
#include <sys/wait.h>

int main(void) {
  sigset_t awaited;
  sigemptyset(&awaited);
  sigaddset(&awaited, SIGINT);
  sigaddset(&awaited, SIGTERM);
  sigaddset(&awaited, SIGCHLD);
  /* A blocked signal stays pending even for PID 1, to which the kernel sends nothing by default. */
  sigprocmask(SIG_BLOCK, &awaited, 0);

  for (;;) {
    int received;
    if (sigwait(&awaited, &received) != 0) continue;
    if (received != SIGCHLD) return 0;
    while (waitpid(-1, 0, WNOHANG) > 0) continue;
  }
}
