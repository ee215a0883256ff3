"""Whether logins slow jobs: the time of small jobs with and without 100 attempts a second to log in, in turn.

Usage: logins.py PROGRAM [ROUNDS]. Starts a cluster of its own in a temporary folder. Attempts come each from an address of its
own of 127.0.0.0/8, of many names, so that no limit on attempts spares the cluster the work; one in twenty is right.
"""

import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

AT = ("127.0.0.1", 7191)
FIRST, PASSWORD = "the first password", "the second password"
RATE = 100
JOBS = 20
codes = {}


def call(verb, path, body=None, token=None, source=None):
    connection = http.client.HTTPConnection(*AT, timeout=60, source_address=source)
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = "Bearer " + token
    connection.request(verb, path, json.dumps(body) if body is not None else None, headers)
    answer = connection.getresponse()
    return answer.status, answer.read()


def login(name, password, source=None):
    return call("POST", "/v1/auth/login", {"user": name, "password": password}, source=source)


def attempt(n):
    source = ("127.%d.%d.%d" % (1 + n // 60000, n // 250 % 240, 1 + n % 250), 0)
    name, password = ("admin", PASSWORD) if n % 20 == 0 else (f"user{n}", "wrong")
    try:
        status, _ = login(name, password, source)
    except OSError as e:
        status = type(e).__name__
    codes[status] = codes.get(status, 0) + 1


def attempts(stop, numbers):
    begun, n = time.perf_counter(), 0
    while not stop.is_set():
        threading.Thread(target=attempt, args=(next(numbers),), daemon=True).start()
        n += 1
        time.sleep(max(0, begun + n / RATE - time.perf_counter()))


def job(number, token):
    begun = time.perf_counter()
    spec = {"app": {"name": "wordcount"}, "inputs": ["in/"], "output": f"out/{number}", "reducers": 1}
    status, answer = call("POST", "/v1/jobs", {"key": f"key{number}", "spec": spec}, token)
    assert status == 200, answer
    _, told = call("GET", f"/v1/jobs/{json.loads(answer)['job']}/watch", None, token)
    assert b"COMPLETED" in told, told
    return time.perf_counter() - begun


def main(program, rounds):
    os.makedirs("store/in")
    with open("store/in/a.txt", "w") as text:
        text.write("the mill grinds corn\n" * 2000)
    with open("password", "w") as file:
        file.write(FIRST)
    serve = [program, "serve", "--data", "data", "--store", "store", "--listen", "%s:%d" % AT]
    node = subprocess.Popen(serve + ["--admin-password-file", "password"], stderr=subprocess.DEVNULL)
    try:
        status = 0
        while status != 200:
            time.sleep(0.2)
            try:
                status, told = login("admin", FIRST)
            except OSError:
                pass
        token = json.loads(told)["access_token"]
        change = {"old_password": FIRST, "new_password": PASSWORD}
        assert call("POST", "/v1/auth/password", change, token)[0] == 200
        numbers, tries = iter(range(10**9)), iter(range(10**9))
        phase = lambda: statistics.median(job(next(numbers), token) for _ in range(JOBS))
        phase()
        for _ in range(rounds):
            quiet = phase()
            stop = threading.Event()
            trying = threading.Thread(target=attempts, args=(stop, tries))
            trying.start()
            time.sleep(0.5)
            busy = phase()
            stop.set()
            trying.join()
            time.sleep(1.5)
            print(f"without {quiet * 1000:.1f} ms, with {busy * 1000:.1f} ms: {busy / quiet:.2f}")
        print("answers to attempts:", codes)
    finally:
        node.terminate()
        node.wait()


if __name__ == "__main__":
    program = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        main(program, int(sys.argv[2]) if len(sys.argv) > 2 else 5)
