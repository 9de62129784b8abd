"""CPU of the client per call, against a bare aiohttp loop with stdlib json in the same run.

    python tests/benchmarks/call_overhead.py [calls]

The server is a process of its own and answers at once; 64 calls are in flight. Each measurement is a
process of its own, the two kinds take turns, and the least of five counts.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time

IN_FLIGHT, ROUNDS, WARM_UP = 64, 5, 200
TEXT = "The battery lasts two days, but the strap broke after a week. " * 16


def question(number: int) -> list[dict[str, str]]:
    """The messages of one call, about 1 KB, unlike all others."""
    return [{"role": "user", "content": f"{number}: {TEXT}"}]


def cpu() -> float:
    """Seconds of CPU of this process, all threads together."""
    return time.process_time()


async def bare(base_url: str, calls: int) -> float:
    """Seconds of CPU of a loop over ``session.post``."""
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(number: int) -> str:
            body = json.dumps({"model": "a", "messages": question(number)})
            headers = {"Content-Type": "application/json", "Authorization": "Bearer key"}
            async with session.post(base_url + "/chat/completions", data=body, headers=headers) as response:
                answer = json.loads(await response.read())
            return str(answer["choices"][0]["message"]["content"])

        return await measured(ask, calls)


async def measured(ask: object, calls: int) -> float:
    """Seconds of CPU of ``calls`` calls, 64 in flight."""
    numbers = iter(range(WARM_UP))

    async def work() -> None:
        for number in numbers:
            await ask(number)  # type: ignore[operator]

    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    numbers = iter(range(WARM_UP, WARM_UP + calls))
    began = cpu()
    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return cpu() - began


def ours(base_url: str, calls: int) -> float:
    """Seconds of CPU of the whole path: prompt, digest, store, budget, limits, http, record."""
    import moa_nb as moa
    from moa_nb.chat import conversation
    from moa_nb.engine.engine import current
    from moa_nb.engine.plan import Options
    from moa_nb.pipeline.ask import Task

    os.environ["LAB_KEY"] = "key"
    price = {"prompt_price": 1.0, "completion_price": 1.0}
    moa.configure(
        aggregator="lab:a",
        pipeline="single",
        providers={"lab": {"base_url": base_url, "key_env": "LAB_KEY"}},
        models={"lab:a": price},
    )
    engine = current()

    async def go() -> float:
        plan = await engine.plan(Options(budget=1000.0))

        async def ask(number: int) -> str:
            task = Task(conversation(question(number)))
            return (await engine.answer(plan, task, engine.new_record(plan, task), row=number)).text

        return await measured(ask, calls)

    return engine.finish(go())


def child(kind: str, base_url: str, calls: int) -> float:
    """Seconds of CPU of one measurement in a process of its own."""
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [sys.executable, __file__, kind, base_url, str(calls)],
            env={**os.environ, "MOA_NB_HOME": home},
            cwd=home,
            capture_output=True,
            text=True,
            check=True,
        )
    return float(done.stdout)


def main() -> None:
    """Print milliseconds of CPU per call and their ratio."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    server = subprocess.Popen(
        [sys.executable, "-m", "moa_nb.testing", "--port", "0", "--exit-with-stdin"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        base_url = server.stdout.readline().strip()
        found: dict[str, list[float]] = {"bare": [], "ours": []}
        for _ in range(ROUNDS):
            for kind, times in found.items():
                times.append(child(kind, base_url, calls) / calls * 1000)
    finally:
        server.stdin.close()
        server.wait()
    for kind, times in found.items():
        print(f"{kind}: {min(times):.3f} ms of CPU a call (of {', '.join(f'{one:.3f}' for one in times)})")
    print(f"ratio: {min(found['ours']) / min(found['bare']):.2f}")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        kind, base_url, calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
        print(asyncio.run(bare(base_url, calls)) if kind == "bare" else ours(base_url, calls))
    else:
        main()
