"""What `helm test` runs: submit `callboard.ping` through the Service and read its result."""

import json
import pathlib
import sys
import urllib.request

URL, KEY_FILE = sys.argv[1:]
KEY = pathlib.Path(KEY_FILE).read_text(encoding="utf-8").strip()
TEXT = "from helm test"


def call(path: str, body: object = None, **headers: str) -> dict:
    data = None if body is None else json.dumps(body).encode()
    head = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **headers}
    with urllib.request.urlopen(urllib.request.Request(URL + path, data, head), timeout=60) as answer:
        return json.load(answer)


task = call("/v1/tasks", {"name": "callboard.ping", "payload": {"text": TEXT}})
sys.stdout.write(f"submitted {task['id']}\n")
for _ in range(3):
    task = call(f"/v1/tasks/{task['id']}", Prefer="wait=40")
    if task["state"] in ("completed", "failed", "cancelled"):
        break
sys.stdout.write(json.dumps({"state": task["state"], "result": task.get("result")}) + "\n")
sys.exit(not (task["state"] == "completed" and (task.get("result") or {}).get("text") == TEXT))
