/* Writes text; each token gets a colour. Text can come later than its tokens, as a character may take
   several and a stop string is held back: tokens wait until the text that they spell is there. */
class Painter {
  constructor(place) {
    this.place = place; this.text = ""; this.units = []; this.open = [];
    this.decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  }
  add(text, tokens) {
    this.text += text;
    for (const token of tokens) {
      this.open.push(token);
      const whole = this.decoder.decode(new Uint8Array(token.bytes), { stream: true });
      if (whole) this.units.push({ text: whole, tokens: this.open.splice(0) });
    }
    if (!this.units.length && !this.open.length) this.plain();
    while (this.units.length && this.text) {
      const unit = this.units[0];
      if (this.text.startsWith(unit.text)) this.span(unit.text, unit.tokens);
      else if (unit.text.startsWith(this.text)) return;
      this.units.shift(); /* a special token, which has no text, is left out */
    }
  }
  end() {
    const unit = this.units.shift() || { tokens: this.open };
    if (this.text && unit.tokens.length) this.span(this.text, unit.tokens);
    this.plain();
  }
  span(text, tokens) {
    this.text = this.text.slice(text.length);
    const span = tokenSpan(text, tokens);
    span.tabIndex = this.place.querySelector(".t") ? -1 : 0;
    this.place.append(span);
  }
  plain() { if (this.text) this.place.append(this.text); this.text = ""; }
}

function tokenSpan(text, tokens) {
  const least = Math.min(...tokens.map(one => one.logprob));
  const p = Math.exp(least);
  const level = p < .05 ? 0 : p < .2 ? 1 : p < .5 ? 2 : p < .8 ? 3 : 4;
  const span = make("span", "t p" + level, text);
  span.tokens = tokens;
  return span;
}
const percent = logprob => {
  const p = 100 * Math.exp(logprob);
  return p < .01 ? "<0.01%" : p.toFixed(p >= 10 ? 0 : p >= 1 ? 1 : 2) + "%";
};
const visible = text => text.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll(" ", "␣");
function tell(span) {
  const table = make("table");
  for (const token of span.tokens) {
    const rows = [...token.top];
    if (!rows.some(([name]) => name === token.name)) rows.push([token.name, token.logprob]);
    for (const [name, logprob] of rows) {
      const row = make("tr", name === token.name ? "chosen" : "");
      row.append(make("td", "", visible(name)), make("td", "", percent(logprob)));
      table.append(row);
    }
  }
  const tip = $("tip");
  span.setAttribute("aria-describedby", "tip"); /* a screen reader then reads it */
  tip.replaceChildren(table);
  tip.hidden = false;
  const box = span.getBoundingClientRect(), size = tip.getBoundingClientRect();
  const below = box.bottom + 6 + size.height < innerHeight;
  tip.style.left = Math.max(4, Math.min(box.left, innerWidth - size.width - 4)) + "px";
  tip.style.top = (below ? box.bottom + 6 : Math.max(4, box.top - size.height - 6)) + "px";
}
const quiet = () => { $("tip").hidden = true; };
document.addEventListener("mouseover", event => {
  if (event.target.classList.contains("t")) tell(event.target); else quiet();
});
document.addEventListener("focusin", event => {
  if (event.target.classList.contains("t")) tell(event.target); else quiet();
});
document.addEventListener("scroll", quiet, true);

const encoder = new TextEncoder();
const bytesOf = name => name.startsWith("bytes:")
  ? name.slice(6).split("\\x").slice(1).map(two => parseInt(two, 16)) : [...encoder.encode(name)];
const textTokens = logprobs => !logprobs ? [] : logprobs.tokens.map((name, i) => ({ name,
  bytes: bytesOf(name), logprob: logprobs.token_logprobs[i],
  top: Object.entries(logprobs.top_logprobs[i]).sort((a, b) => b[1] - a[1]) }));
const chatTokens = logprobs => !logprobs ? [] : logprobs.content.map(one => ({ name: one.token,
  bytes: one.bytes || [], logprob: one.logprob,
  top: one.top_logprobs.map(other => [other.token, other.logprob]) }));
