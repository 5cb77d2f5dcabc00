"""A byte-level BPE tokenizer with a chat template, trained in a moment: tokens that straddle words and tags."""

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TEXT = (
    "Question: Who wrote Dune?\n<think> one step</think><search> Dune author </search>\n\n"
    '<information>Doc 1(Title: "Dune") Dune is a novel.\nDoc 2(Title: "Frank Herbert") He wrote Dune.</information>'
    "\n\n<answer> Frank Herbert </answer>"
)
IM_START, IM_END = "<|im_start|>", "<|im_end|>"


def chat_text(text: str) -> str:
    return f"{IM_START}user\n{text}{IM_END}\n{IM_START}assistant\n"


class SmallBPE:
    """The tokenizer port over `tokenizers`; ``template=False`` leaves the chat template out."""

    def __init__(self, *, template: bool) -> None:
        self.backend = Tokenizer(models.BPE())
        self.backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=400, min_frequency=1, initial_alphabet=alphabet, show_progress=False)
        self.backend.train_from_iterator([TEXT], trainer)
        self.backend.add_special_tokens([IM_START, IM_END])
        self.eos_ids: tuple[int, ...] = (self.backend.token_to_id(IM_END),)
        self.template = template

    def encode(self, text: str) -> list[int]:
        return list(self.backend.encode(text, add_special_tokens=False).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        return str(self.backend.decode(list(token_ids), skip_special_tokens=False))

    def chat(self, text: str) -> list[int] | None:
        return self.encode(chat_text(text)) if self.template else None
