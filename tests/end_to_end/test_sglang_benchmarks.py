"""SGLang's benchmark programs, in their documented shapes, on the default model, in small."""

import json
import re
from collections import Counter

import pytest

import sapwood as sgl

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def backend(engine):
    sgl.set_default_backend(engine)
    yield engine
    sgl.set_default_backend(None)


SHOTS = "Question: Ann has 2 apples and buys 3. How many?\nAnswer: 2 + 3 = 5. #### 5\n\n"


def test_gsm8k():
    @sgl.function
    def few_shot_gsm8k(s, question):
        s += SHOTS + question
        s += sgl.gen("answer", max_tokens=12, stop=["Question", "Assistant:", "<|separator|>"])

    questions = [f"Question: Tom has {n} pens and buys 1. How many?\nAnswer:" for n in (1, 2, 3)]
    states = few_shot_gsm8k.run_batch(
        [{"question": q} for q in questions], temperature=0, num_threads=64, progress_bar=True
    )
    assert sum(s.get_meta_info("answer")["completion_tokens"] for s in states) > 0
    assert all("Question" not in s["answer"] for s in states)


def test_mmlu_reads_one_token_after_many_prefixes():
    @sgl.function
    def few_shot_mmlu(s, examples, question):
        s += examples + question + sgl.gen("answer")

    items = [
        {"examples": f"Questions about {subject}.\n\n", "question": "1+1?\nA. 1\nB. 2\nAnswer:"}
        for subject in ("algebra", "law")
        for _ in range(2)
    ]
    states = few_shot_mmlu.run_batch(items, temperature=0, max_new_tokens=1, backend=None)
    assert all(s.get_meta_info("answer")["completion_tokens"] <= 1 for s in states)
    assert states[0]["answer"] == states[1]["answer"]


def test_hellaswag_selects_an_ending(engine):
    @sgl.function
    def few_shot_hellaswag(s, question, choices):
        s += "A man sits down. He opens a book.\n\nA dog sees a cat. It barks.\n\n"
        s += question
        s += sgl.select("answer", choices=choices)

    endings = [" It swims in the water.", " It is a law of logarithms.", " The the the."]
    items = [{"question": "A fish jumps into the lake.", "choices": endings}] * 2
    states = few_shot_hellaswag.run_batch(items, temperature=0, num_threads=4)
    picks = [endings.index(s["answer"]) for s in states]
    assert picks == [0, 0]


# --- trees of thought --------------------------------------------------------------------------


def propose_plan(s, question, num_branches):
    s += sgl.user("Plan how to solve: " + question)
    forks = s.fork(num_branches)
    forks += sgl.assistant(sgl.gen("plan", max_tokens=4, temperature=0.001))
    return forks


def execute_plan(s, num_branches):
    s += sgl.user("Carry out the plan.")
    forks = s.fork(num_branches)
    forks += sgl.assistant(sgl.gen("answer", max_tokens=4, temperature=0.001))
    return forks


def reflect_solution(s, num_branches):
    s += sgl.user("Is it right?")
    forks = s.fork(num_branches)
    forks += sgl.assistant(sgl.gen("score", max_tokens=4, temperature=0.001))
    return forks


def final_solution(s, num_branches):
    s += sgl.user("Give the final answer.")
    forks = s.fork(num_branches)
    forks += sgl.assistant(sgl.gen("final_answer", max_tokens=4, temperature=0.001))
    return forks


def test_a_deep_tree_of_thought_returns_its_leaves():
    @sgl.function
    def tree_search(s, question, num_branches):
        leaves = []
        for plan in propose_plan(s, question, num_branches):
            for solution in execute_plan(plan, num_branches):
                for reflection in reflect_solution(solution, num_branches):
                    leaves += list(final_solution(reflection, num_branches))
        return leaves

    states = tree_search.run_batch([{"question": "2 + 3?", "num_branches": 2}], progress_bar=False)
    leaves = states[0].ret_value
    assert len(leaves) == 16
    assert all(isinstance(leaf["final_answer"], str) for leaf in leaves)


def test_a_nested_join_gathers_lists_of_lists():
    @sgl.function
    def tree_search(s, question, num_branches):
        s += sgl.user("Solve: " + question)
        first = s.fork(num_branches)
        first += sgl.assistant(sgl.gen("plan", max_tokens=3, temperature=0.3))
        for fork in first:
            fork += sgl.user("Solve it by the plan.")
            second = fork.fork(num_branches)
            second += sgl.assistant(sgl.gen("answer", max_tokens=3, temperature=0.3))
            second.join()
        first.join()

    state = tree_search.run(question="2 + 3?", num_branches=3)
    assert len(state["plan"]) == 3
    assert [len(answers) for answers in state["answer"]] == [3, 3, 3]


# --- forks that come together ------------------------------------------------------------------


@sgl.function
def expand_tip(s, topic, tip):
    s += "Please expand a tip for a topic into a detailed paragraph.\n\n"
    s += "Topic: " + topic + "\nTip: " + tip + "\nParagraph:"
    s += sgl.gen("paragraph", max_tokens=6, stop=["\n\n"])


def test_tips_are_expanded_by_another_program():
    @sgl.function
    def suggest_tips(s, topic):
        s += "Topic: " + topic + "\nNumber of tips: 2\n1. Sleep.\n2. Eat.\n"
        tips = ["Sleep well.", "Eat greens."]
        paragraphs = [
            expand_tip(topic=topic, tip=tip, max_new_tokens=6, temperature=0) for tip in tips
        ]
        for i, paragraph in enumerate(paragraphs):
            s += f"Tip {i + 1}:" + paragraph["paragraph"] + "\n"

    text = suggest_tips.run(topic="health").text()
    assert "Tip 2:" in text


def test_a_judge_branches_solves_and_merges():
    dimensions = ["Clarity", "Originality", "Evidence"]

    @sgl.function
    def multi_dimension_judge(s, article):
        s += "Please judge the quality of the article.\n" + article + "\n"
        forks = s.fork(len(dimensions))
        for i, dimension in enumerate(dimensions):
            forks[i] += f"Judge the {dimension}. Judgment:" + sgl.gen(
                "judgment", max_tokens=5, stop="END"
            )
        forks.join()
        for dimension, judgment in zip(dimensions, s["judgment"], strict=True):
            s += dimension + ": " + judgment + "\n"
        s += "In summary," + sgl.gen("summary", max_tokens=5, stop="END")

    state = multi_dimension_judge.run(article="Trees are tall.", temperature=0)
    assert len(state["judgment"]) == 3
    assert all(dimension in state.text() for dimension in dimensions)


def test_chains_of_reasoning_vote():
    @sgl.function
    def multi_chain_gsm8k(s, question, num_chains):
        s += SHOTS + "Question: " + question + "\n"
        forks = s.fork(num_chains)
        for i in range(num_chains):
            forks[i] += f"Answer: (chain {i})" + sgl.gen(
                "answer", max_tokens=8, temperature=0.3, stop="Question"
            )
        forks.join()
        s += "Answer 1: " + s["answer"][0] + "\nFinal answer:" + sgl.gen("final", max_tokens=4)

    state = multi_chain_gsm8k.run(question="1 + 1?", num_chains=5)
    votes = Counter(re.findall("[0-9]+", " ".join(state["answer"])))
    assert len(state["answer"]) == 5
    assert isinstance(votes, Counter)


# --- documents in parallel ---------------------------------------------------------------------


def test_documents_are_read_in_parallel():
    @sgl.function
    def multi_document_qa(s, docs, question):
        s += sgl.user_begin()
        s += "Please answer a question according to given documents.\nDocuments begin.\n"
        forks = s.fork(len(docs))
        forks += lambda i: docs[i]
        forks.join("concate_and_append")
        s += "\nDocuments end.\nQuestion: " + question
        s += sgl.user_end()
        s += sgl.assistant("Answer:" + sgl.gen("answer", max_tokens=6))

    docs = [f"Document {i}: city {i} has {i}00 trees. " for i in range(4)]
    state = multi_document_qa.run(docs=docs, question="How many trees has city 2?", temperature=0)
    assert "".join(docs) in state.text()


def test_a_line_is_retrieved():
    @sgl.function
    def line_retrieval(s, prefix, suffix, bodies, offsets):
        s += prefix
        forks = s.fork(len(bodies), position_ids_offset=offsets)
        forks += lambda i: bodies[i]
        forks.join(mode="concate_and_append")
        s += suffix
        s += sgl.gen("answer", max_tokens=6, stop="\n")

    bodies = [f"line {i}: REGISTER_CONTENT is <{i * 7}>\n" for i in range(4)]
    state = line_retrieval.run(
        prefix="Remember the lines.\n", suffix="line 2 has ", bodies=bodies, offsets=[0, 20, 40, 60]
    )
    assert "".join(bodies) in state.text()


# --- replayed agents ---------------------------------------------------------------------------


def test_recorded_react_traces_are_replayed():
    @sgl.function
    def webthink(s, question, triplets):
        s += "Question: " + question + "\n"
        for i, (thought, action, observation) in enumerate(triplets, 1):
            step = s.fork(1)[0]
            step += f"Thought {i}:" + sgl.gen("thought", max_tokens=4, stop="Observation")
            step.sync()
            s += f"Thought {i}: {thought}\nAction {i}: {action}\nObservation {i}: {observation}\n"

    traces = [[("I search.", "Search[x]", "Found."), ("I finish.", "Finish[x]", "Done.")]] * 2
    items = [{"question": "Who?", "triplets": triplets} for triplets in traces]
    states = webthink.run_batch(items, temperature=0)
    assert all("Observation 2: Done." in s.text() for s in states)


def test_generative_agents_make_many_small_calls():
    @sgl.function
    def poignancy_event(s, persona_name, event):
        s += f"Here is a brief description of {persona_name}.\n"
        s += f"On the scale of 1 to 10, rate: {event}\nRate:"
        s += sgl.gen(name="Rate", max_tokens=2, stop=["\n"])

    @sgl.function
    def generate_event_triple(s, persona_name, action):
        s += "Input: Sam is eating. Output: (Sam, eat, food)\n"
        s += f"Input: {persona_name} is {action}. Output: ("
        s += persona_name + ","
        s += sgl.gen(name="Triple", max_tokens=6, stop=")")
        s += ")"

    calls = [
        (poignancy_event, {"persona_name": "Ann", "event": "brushing teeth"}),
        (generate_event_triple, {"persona_name": "Ann", "action": "reading"}),
    ] * 2
    states = [program.run(**arguments, temperature=0) for program, arguments in calls]
    assert states[0].text() == states[2].text()
    assert states[1].text().endswith(")")


# --- JSON --------------------------------------------------------------------------------------

CITY = (
    r"""\{\n    "name": "[\w\d\s]{1,16}",\n    "country": "[\w\d\s]{1,16}",\n"""
    r"""    "population": [-+]?[0-9]{1,9},\n    "top 3 landmarks": """
    r"""\["[\w\d\s]{1,16}", "[\w\d\s]{1,16}", "[\w\d\s]{1,16}"\]\n\}"""
)


def test_json_jumps_forward():
    @sgl.function
    def city_gen(s, document):
        s += "Please extract the information of a city from the page.\n" + document
        s += sgl.gen("json_output", max_tokens=96, regex=CITY)

    state = city_gen.run(document="Paris is in France.\n", temperature=0)
    assert set(json.loads(state["json_output"])) == {
        "name",
        "country",
        "population",
        "top 3 landmarks",
    }
    assert state.get_meta_info("json_output")["forced_tokens"] > 0


def test_json_is_decoded_field_by_field_over_a_long_document():
    @sgl.function
    def json_decode(s, document):
        s += "Please extract the information of a city.\n" + document
        with s.var_scope("json_output"):
            s += '{\n    "name": "' + sgl.gen("name", max_tokens=8, stop='"') + '",\n'
            s += '    "street": "' + sgl.gen("street", max_tokens=8, stop='"') + '",\n'
            s += '    "zip": "' + sgl.gen("zip", max_tokens=6, stop='"') + '"\n}'

    state = json_decode.run(document="The house stands in a long road. " * 20, temperature=0)
    assert state["json_output"].startswith('{\n    "name": "')
    assert all('"' not in state[name] for name in ("name", "street", "zip"))


# --- conversations and batches -----------------------------------------------------------------


def test_turns_of_many_sessions_reuse_their_history(engine):
    @sgl.function
    def multi_turns(s, qas):
        for i, (question, length) in enumerate(qas):
            s += question
            s += sgl.gen(f"answer{i}", max_tokens=length, ignore_eos=True)

    sessions = [[(f"Session {i} turn {j}: words. ", 4) for j in range(3)] for i in range(3)]
    states = multi_turns.run_batch([{"qas": qas} for qas in sessions], temperature=0, num_threads=4)
    for state in states:
        metas = [state.get_meta_info(f"answer{j}") for j in range(3)]
        assert [meta["completion_tokens"] for meta in metas] == [4, 4, 4]
        # All of the history but the last sampled token, whose KV was never computed.
        history = metas[0]["prompt_tokens"] + 4
        assert metas[1]["cached_tokens"] >= history - 2


def test_mt_bench_answers_two_turns_in_a_batch():
    @sgl.function
    def answer_mt_bench(s, question_1, question_2):
        s += sgl.system()
        s += sgl.user(question_1)
        s += sgl.assistant(sgl.gen("answer_1", max_tokens=6))
        s += sgl.user(question_2)
        s += sgl.assistant(sgl.gen("answer_2", max_tokens=6))

    items = [{"question_1": "Write a line.", "question_2": "Make it shorter."}] * 2
    states = answer_mt_bench.run_batch(items, temperature=0, max_new_tokens=6, num_threads=64)
    assert [s["answer_2"] for s in states][0] == states[1]["answer_2"]


def test_a_prefix_is_shared_within_a_batch(engine):
    prefix = "All of these words stand before every question of the batch. " * 8

    @sgl.function
    def text_qa(s, question):
        s += prefix + "Q: " + question + "\nA:" + sgl.gen("answer", stop="\n", max_tokens=3)

    assert sgl.flush_cache() is True
    before = engine.stats()["tokens_computed"]
    text_qa.run_batch([{"question": f"What is {i}?"} for i in range(6)], temperature=0)
    computed = engine.stats()["tokens_computed"] - before
    prompt = text_qa.run(question="What is 0?").get_meta_info("answer")["prompt_tokens"]
    assert computed < 2 * prompt


def test_yes_or_no_questions_are_selected():
    @sgl.function
    def boolq(s, passage, question):
        s += "Passage: " + passage + "\nQuestion: " + question + "\nAnswer:"
        s += sgl.gen("answer", choices=[" yes", " no"])

    state = boolq.run(passage="Snow is white and cold.", question="Is snow white?")
    assert state["answer"] in (" yes", " no")


def test_results_come_one_by_one():
    @sgl.function
    def program(s, i):
        s += f"{i}" + sgl.gen("x", max_tokens=2)

    states = program.run_batch([[i] for i in range(3)], generator_style=True, temperature=0)
    assert [s.text()[0] for s in states] == ["0", "1", "2"]
    assert sgl.get_server_info()["model"]
