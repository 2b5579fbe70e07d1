"""Start the HTTP server, talk to it with the official `openai` client, stop it.

Look at `base_url`: any program that speaks OpenAI's chat API can use Sapwood. Needs `pip install
openai`.
"""

import subprocess
import sys

import openai

PORT = 30123


def main():
    command = [sys.executable, "-m", "sapwood", "serve", "--port", str(PORT)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        while f":{PORT}" not in (line := server.stdout.readline()):
            if not line:
                raise SystemExit("the server did not start")
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{PORT}/v1", api_key="none")
        stream = client.chat.completions.create(
            model=client.models.list().data[0].id,
            messages=[{"role": "user", "content": "Write two lines about trees."}],
            max_tokens=60,
            temperature=0,
            stream=True,
        )
        for chunk in stream:
            if chunk.choices:
                print(chunk.choices[0].delta.content or "", end="", flush=True)
        print()
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
