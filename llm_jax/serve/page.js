"use strict";
const $ = id => document.getElementById(id);
const make = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};
let models = [], sides = [], running = null;

class Side {
  constructor(index) {
    this.box = make("section");
    const label = make("label", "", index ? "Second model" : "Model");
    this.select = make("select");
    this.select.id = "model" + index;
    label.htmlFor = this.select.id;
    for (const model of models) {
      const step = model.step === null ? "" : ` (step ${model.step})`;
      const option = make("option", "", model.id + step);
      option.value = model.id;
      this.select.append(option);
    }
    this.select.selectedIndex = Math.min(index, models.length - 1);
    this.select.addEventListener("change", showMode);
    this.out = make("div", "out");
    this.out.setAttribute("aria-live", "polite");
    this.note = make("p", "note");
    this.box.append(label, this.select, this.note, this.out);
    this.turns = [];
  }
  get model() { return models.find(one => one.id === this.select.value); }
  clear() { this.out.replaceChildren(); this.say(""); this.turns = []; }
  say(text, failed) { this.note.textContent = text; this.note.className = failed ? "note error" : "note"; }

  /* Whether there is an answer, or a part of one. */
  async generate(controls, signal) {
    const chat = controls.mode === "chat", turns = this.turns; /* "Clear" makes new ones */
    let place = this.out, boxes = [];
    if (chat) {
      turns.push({ role: "user", content: controls.text });
      boxes = [this.turn("you"), this.turn(this.model.id)];
      boxes[0].textContent = controls.text;
      this.out.scrollTop = this.out.scrollHeight;
      place = boxes[1];
    } else {
      this.out.replaceChildren(make("span", "given", controls.text));
    }
    const began = performance.now();
    const painter = new Painter(place);
    let first = 0, tokens = 0, text = "", reason = "";
    this.say("…");
    try {
      const answer = await fetch(chat ? "v1/chat/completions" : "v1/completions", {
        method: "POST", signal, headers: { "Content-Type": "application/json" },
        body: JSON.stringify(this.body(controls, chat)),
      });
      if (!answer.ok) throw new Error(await refusal(answer));
      for await (const event of events(answer)) {
        if (event.error) throw new Error(event.error.message);
        if (event.usage) tokens = event.usage.completion_tokens;
        for (const choice of event.choices) {
          const piece = (chat ? choice.delta.content : choice.text) || "";
          if (!first && (piece || choice.logprobs)) first = performance.now();
          text += piece;
          const scored = chat ? chatTokens(choice.logprobs) : textTokens(choice.logprobs);
          this.follow(() => painter.add(piece, scored));
          reason = choice.finish_reason || reason;
        }
      }
      const rest = (performance.now() - first) / 1000;
      const speed = tokens > 1 && rest > 0 ? `, ${((tokens - 1) / rest).toFixed(1)} tokens/s` : "";
      const wait = first ? `, first after ${((first - began) / 1000).toFixed(2)} s` : "";
      this.say(`${tokens} token${tokens === 1 ? "" : "s"}, ${reason}${wait}${speed}`);
    } catch (error) {
      const stopped = error.name === "AbortError";
      this.say(stopped ? "stopped" : fault(error), !stopped);
    }
    painter.end();
    if (chat && text) turns.push({ role: "assistant", content: text });
    else if (chat && !reason) { turns.pop(); for (const box of boxes) box.parentNode.remove(); }
    else if (chat) turns.push({ role: "assistant", content: "" });
    return Boolean(text || reason);
  }
  /* A reader who sees the end of a conversation sees it still when it grows. */
  follow(paint) {
    const below = this.out.scrollHeight - this.out.scrollTop - this.out.clientHeight;
    paint();
    if (below < 40) this.out.scrollTop = this.out.scrollHeight;
  }
  turn(who) {
    const box = make("div", "turn");
    const text = make("span");
    box.append(make("span", "who", who), text);
    this.out.append(box);
    return text;
  }
  body(controls, chat) {
    const made = { model: this.model.id, stream: true, stream_options: { include_usage: true },
      max_tokens: controls.max, temperature: controls.temperature, top_p: controls.topp,
      top_k: controls.topk, min_p: controls.minp, repetition_penalty: controls.penalty };
    if (controls.seed !== null) made.seed = controls.seed;
    if (controls.stop) made.stop = [controls.stop];
    if (chat) Object.assign(made, { messages: this.turns });
    else made.prompt = controls.text;
    if (controls.colour) Object.assign(made, chat ? { logprobs: true, top_logprobs: 5 } : { logprobs: 5 });
    return made;
  }
}

/* Why an answer is none, in the server's words; a proxy may have others. */
async function refusal(answer) {
  try { return (await answer.json()).error.message; }
  catch { return `The server's answer is ${answer.status} ${answer.statusText}`.trim() + "."; }
}
/* A browser calls it a TypeError when nobody answers, or the connection breaks off. */
const fault = error => error instanceof TypeError
  ? "The server does not answer: see whether it is still running." : error.message;

async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error("The answer was cut off.");
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

const numberOf = (id, other) => $(id).value === "" ? other : Number($(id).value);
function controls() {
  return { mode: $("mode").value, text: $("text").value, max: numberOf("max", 64),
    temperature: numberOf("temperature", 1), topp: numberOf("topp", 1), topk: numberOf("topk", 0),
    minp: numberOf("minp", 0), penalty: numberOf("penalty", 1), seed: numberOf("seed", null),
    stop: $("stop").value.replaceAll("\\n", "\n"), colour: $("colour").checked };
}
async function go() {
  if (running || !sides.length) return;
  const asked = controls(), chat = asked.mode === "chat";
  if (chat && !asked.text.trim()) { $("text").focus(); return; }
  running = new AbortController();
  quiet();
  show(true);
  if (chat) $("text").value = "";
  const made = await Promise.all(sides.map(side => side.generate(asked, running.signal)));
  running = null;
  show(false);
  /* A message that no model has answered can be sent again. */
  if (chat && !made.includes(true) && !$("text").value) $("text").value = asked.text;
}
function show(busy) {
  for (const id of ["go", "mode", "compare"]) $(id).disabled = busy;
  $("halt").disabled = !busy;
}
const halt = () => { if (running) running.abort(); };
function showMode() {
  const chat = $("mode").value === "chat";
  $("textlabel").textContent = chat ? "Message" : "Text to continue";
  $("keys").textContent = chat ? "Enter sends, Shift+Enter begins a line, Esc stops"
    : "Ctrl+Enter generates, Esc stops";
  $("go").textContent = chat ? "Send" : "Generate";
  document.body.classList.toggle("talk", chat);
  const missing = "This model has no chat template: let it continue a text.";
  for (const side of sides) side.say(chat && !side.model.chat ? missing : "", true);
}
function showSides() {
  const count = $("compare").checked ? 2 : 1;
  while (sides.length > count) sides.pop().box.remove();
  while (sides.length < count) {
    const side = new Side(sides.length);
    sides.push(side);
    $("sides").append(side.box);
  }
  $("sides").className = count === 2 ? "sides two" : "sides";
  showMode();
}
$("form").addEventListener("submit", event => { event.preventDefault(); go(); });
$("halt").addEventListener("click", halt);
$("clear").addEventListener("click", () => { halt(); for (const side of sides) side.clear(); });
$("compare").addEventListener("change", showSides);
$("mode").addEventListener("change", () => { for (const side of sides) side.clear(); showMode(); });
$("colour").addEventListener("change", () => {
  $("key").hidden = !$("colour").checked;
  document.body.classList.toggle("plain", !$("colour").checked);
});
/* Enter that sends: in a message alone, elsewhere with Ctrl or the command key. */
const sends = event => event.key === "Enter" && (event.ctrlKey || event.metaKey ||
  (event.target === $("text") && $("mode").value === "chat" && !event.shiftKey && !event.altKey));
document.addEventListener("keydown", event => {
  /* While an input method composes, Enter takes its suggestion and Esc drops it. Safari says so
     by the code alone. */
  if (event.isComposing || event.keyCode === 229) return;
  if (sends(event)) {
    event.preventDefault();
    if ($("form").reportValidity()) go();
  }
  if (event.key === "Escape") { halt(); quiet(); }
  const here = document.activeElement;
  if ((event.key === "ArrowRight" || event.key === "ArrowLeft") && here.classList.contains("t")) {
    const all = [...document.querySelectorAll(".t")];
    const next = all[all.indexOf(here) + (event.key === "ArrowRight" ? 1 : -1)];
    if (next) { event.preventDefault(); next.focus(); }
  }
});
fetch("v1/models").then(answer => answer.json()).then(answer => {
  models = answer.data;
  $("mode").value = models.every(one => one.chat) ? "chat" : "text";
  $("compare").checked = models.length > 1;
  showSides();
}).catch(() => {
  $("sides").append(make("p", "note error", "The server does not answer: load this page again."));
});
