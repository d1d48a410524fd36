"""Let a small chat model write both sides of a conversation (Magpie), and see what the gates say.

    make vllm                                       # once: the environment that serves models
    python examples/magpie_tiny.py --prompts 12     # about a minute; the second run asks nothing

Shows a teacher from pinned packages, a vLLM server that starts when it is needed, and the durable request engine.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flows.teachers import SMOLLM2
from tasks.artifact import produce
from tasks.generation.answer_store import AnswerStore
from tasks.generation.answers import Tally, answer_all
from tasks.generation.requests import Answer, model_identity
from tasks.generation.server import Serving, policy_for, served
from tasks.instruct.config import InstructConfig, InstructGates
from tasks.instruct.magpie import answer_gate, answer_request, judge_prompts, prompt_request
from tasks.instruct.wording import elicitation
from tasks.teacher.stage import TEACHER


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=12, help="prompts to draw")
    parser.add_argument("--store", default=".nestling/store", help="where the teacher and the answers are kept")
    parser.add_argument("--url", default="", help="an OpenAI-compatible server of the same model, instead of our own")
    arguments = parser.parse_args()

    teacher = produce(arguments.store, TEACHER, "smollm2", SMOLLM2, {})
    model_dir, model = teacher.local_dir("model"), model_identity(SMOLLM2.model_name, teacher.manifest.content_digest)
    config = InstructConfig(
        teacher=teacher.url,
        language="en",
        num_prompts=arguments.prompts,
        temperature=0.8,
        top_p=0.9,
        max_prompt_tokens=48,
        max_answer_tokens=96,
        brief_answers=True,
        gates=InstructGates(allow_code_and_maths=False),
        serving=Serving(url=arguments.url),
    )
    begin, store, tally = elicitation(model_dir, True, "en"), AnswerStore(f"{arguments.store}/.answers"), Tally()
    policy = policy_for(config.serving)
    with served(model_dir, config.serving, Path(arguments.store) / ".scratch" / "servers") as generator:
        draws = [prompt_request(model, begin, config, index) for index in range(arguments.prompts)]
        drawn = [reply for _, reply in answer_all(draws, generator, store, policy=policy, tally=tally, label="prompts")]
        prompts = judge_prompts(drawn, config)
        asks = [answer_request(model, text, True, config) for text, reason, _ in prompts if reason is None]
        replies = answer_all(asks, generator, store, policy=policy, tally=tally, label="answers")
        for text, reason, _ in prompts:
            reply = next(replies)[1] if reason is None else None
            if isinstance(reply, Answer):
                reason = answer_gate(text, reply, config)
            print(f"\n{'KEPT' if reason is None else reason}\n  user:      {text!r}")
            if isinstance(reply, Answer):
                print(f"  assistant: {reply.text!r}")
    print(f"\n{tally.facts()}, {tally.answered} asked now, {tally.stored} read from the store")


if __name__ == "__main__":
    main()
