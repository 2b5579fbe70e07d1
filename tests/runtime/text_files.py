"""Small tokenizers of every kind that matters to the text codec. Importable without torch."""

from functools import cache

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from sapwood.runtime.tokenizer import TokenizerFiles

CORPUS = [
    "the quick brown fox jumps over the lazy dog",
    "the fox is a dog and the dog is a fox  and  so on",
    '{"name": "fox", "age": 12}\n\nthe end\n',
    "héllo wörld, ça va? 日本語の木 🙂 🌲🌲 naïve café",
] * 10

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def files_of(
    tokenizer: Tokenizer, special: dict[str, str], *, add_bos: bool = False
) -> TokenizerFiles:
    def id_of(role: str) -> int | None:
        return tokenizer.token_to_id(special[role]) if role in special else None

    eos = id_of("eos_token")
    added = tokenizer.get_added_tokens_decoder()
    return TokenizerFiles(
        tokenizer=tokenizer,
        chat_template=None,
        special=special,
        bos_id=id_of("bos_token"),
        eos_ids=() if eos is None else (eos,),
        add_bos=add_bos,
        model_name="small",
        context_length=2_048,
        special_token_ids=tuple(sorted(id for id, token in added.items() if token.special)),
    )


@cache
def byte_level(*, add_prefix_space: bool = False) -> TokenizerFiles:
    """GPT-2's kind, with ChatML's special tokens, one that swallows spaces on both sides, and an
    added token that is not special."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken("<wide>", lstrip=True, rstrip=True, special=True)])
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    return files_of(tokenizer, {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"})


@cache
def sentencepiece(*, legacy: bool = False) -> TokenizerFiles:
    """Llama's kind: byte fallback, a space before the first word (`legacy`: as a normalizer, so
    after every special token too), BOS."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if not legacy:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(
        vocab_size=520, show_progress=False, special_tokens=["<unk>", "<s>", "</s>", *BYTES]
    )
    steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    if legacy:
        tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.train_from_iterator(CORPUS, trainer)
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(parts)
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return files_of(_with_plain_bytes(tokenizer), special, add_bos=True)


def _with_plain_bytes(tokenizer: Tokenizer) -> Tokenizer:
    """The trainer makes every token of its list special; bytes are ordinary ones."""
    import json

    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] not in BYTES]
    return Tokenizer.from_str(json.dumps(state))


@cache
def unigram() -> TokenizerFiles:
    """A model that holds its special tokens among its ordinary pieces."""
    letters = sorted(set("".join(CORPUS)) - {" "} | {"▁", "<", ">", "/", "s"})
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("▁the", -2.0), ("fox", -2.5)]
    pieces += [(letter, -5.0) for letter in letters]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return files_of(tokenizer, {"bos_token": "<s>", "eos_token": "</s>"}, add_bos=True)


@cache
def single_bytes() -> TokenizerFiles:
    """One token per byte and an end token, 257 in all."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    return files_of(tokenizer, {"eos_token": "<|end|>"})
