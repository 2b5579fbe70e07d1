"""transformers as a peer: `generate` over static batches, in bfloat16.

    python transformers_worker.py FOLDER THREADS

Owns: how a user of transformers would do each work. Its batch is fixed when it starts: all prompts
at once, or `LONG_BATCH` at a time where they are long. Chats are sent again in full every turn.
Constraints need the package xgrammar.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from pipe import first_tokens, serve, timed
from transformers import AutoModelForCausalLM, AutoTokenizer
from work import Chats, Completions, Constrained, FirstToken, NotOffered, Outcome, Work

LONG_PROMPT = 512  # tokens
LONG_BATCH = 16


class Peer:
    def __init__(self, folder: str) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()

    def do(self, work: Work) -> Outcome:
        match work:
            case Completions():
                return self._completions(work)
            case FirstToken():
                return first_tokens(work, lambda p: self._generate([p], **self._exactly(1)))
            case Chats():
                return self._chats(work)
            case Constrained():
                return self._constrained(work)

    def _completions(self, work: Completions) -> Outcome:
        size = LONG_BATCH if work.prompt_tokens > LONG_PROMPT else len(work.prompts)
        batches = [work.prompts[at : at + size] for at in range(0, len(work.prompts), size)]
        options = self._exactly(work.max_tokens)
        if work.n > 1:
            options |= {"do_sample": True, "num_return_sequences": work.n}
        seconds, outputs = timed(lambda: [self._generate(b, **options) for b in batches])
        prompt_tokens = sum(prompt.sum().item() for prompt, _ in outputs)
        return Outcome(seconds, prompt_tokens, sum(out.numel() for _, out in outputs))

    def _chats(self, work: Chats) -> Outcome:
        chats: list[list[dict[str, str]]] = [[] for _ in work.conversations]
        prompt_tokens = output_tokens = 0

        def turn(lines: tuple[str, ...]) -> None:
            nonlocal prompt_tokens, output_tokens
            for chat, line in zip(chats, lines, strict=True):
                chat.append({"role": "user", "content": line})
            prompts = [self._chat_text(chat) for chat in chats]
            mask, output = self._generate(prompts, **self._exactly(work.max_tokens))
            for chat, text in zip(chats, self._decode(output), strict=True):
                chat.append({"role": "assistant", "content": text})
            prompt_tokens += mask.sum().item()
            output_tokens += output.numel()

        turns = list(zip(*work.conversations, strict=True))
        seconds, _ = timed(lambda: [turn(lines) for lines in turns])
        return Outcome(seconds, prompt_tokens, output_tokens)

    def _constrained(self, work: Constrained) -> Outcome:
        prompts = [self._chat_text([{"role": "user", "content": q}]) for q in work.questions]

        def answer() -> tuple[torch.Tensor, torch.Tensor]:
            return self._generate(
                prompts,
                max_new_tokens=work.max_tokens,
                logits_processor=[self._constraint(work)],
                do_sample=False,
            )

        seconds, (mask, output) = timed(answer)
        texts = tuple(self._decode(output))
        written = int((output != self._tokenizer.pad_token_id).sum().item())
        return Outcome(seconds, int(mask.sum().item()), written, texts)

    def _constraint(self, work: Constrained) -> Any:
        try:
            import xgrammar
            from xgrammar.contrib.hf import LogitsProcessor
        except ImportError:
            raise NotOffered("constraints: xgrammar is not installed") from None
        info = xgrammar.TokenizerInfo.from_huggingface(
            self._tokenizer, vocab_size=self._model.config.vocab_size
        )
        compiler = xgrammar.GrammarCompiler(info)
        if work.schema is not None:
            return LogitsProcessor(compiler.compile_json_schema(json.dumps(work.schema)))
        return LogitsProcessor(compiler.compile_regex(work.regex))

    def _exactly(self, tokens: int) -> dict[str, Any]:
        return {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}

    def _generate(
        self, prompts: tuple[str, ...] | list[str], **options: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The prompts' attention mask [batch, prompt] and the new ids [batch * n, new]."""
        batch = self._tokenizer(
            list(prompts), return_tensors="pt", padding=True, add_special_tokens=False
        )
        ids, mask = batch["input_ids"], batch["attention_mask"]
        with torch.inference_mode():
            output = self._model.generate(input_ids=ids, attention_mask=mask, **options)
        return mask, output[:, ids.shape[1] :]

    def _chat_text(self, messages: list[dict[str, str]]) -> str:
        text = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        assert isinstance(text, str)
        return text

    def _decode(self, ids: torch.Tensor) -> list[str]:
        texts: list[str] = self._tokenizer.batch_decode(ids, skip_special_tokens=True)
        return texts


if __name__ == "__main__":
    folder, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    serve(Peer(folder).do)
