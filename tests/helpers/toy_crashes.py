"""An object for worker processes that ends in each way that a kernel can end them."""

import ctypes
import os
import signal
import sys
import time


class Crashes:
    """A number, and ways to crash or hang."""

    def __init__(self, value: int) -> None:
        self.value = value

    def add(self, number: int) -> int:
        self.value += number
        return self.value

    def say(self, text: str) -> str:
        print(text)
        os.write(1, f"{text}\n".encode())
        sys.stdout.flush()
        return text

    def segfault(self) -> None:
        ctypes.memset(8, 0, 1)

    def abort(self) -> None:
        os.abort()

    def fail(self) -> None:
        raise ArithmeticError("the toy is broken")

    def leave(self) -> None:
        os._exit(3)

    def leave_python(self) -> None:
        sys.exit(4)

    def hang(self, interrupt: int = 0) -> None:
        if interrupt:
            os.kill(interrupt, signal.SIGINT)
        while True:
            time.sleep(1)

    def hang_in_c(self) -> None:
        """Hold the GIL for ever."""
        ctypes.PyDLL(None).sleep(1000)
