"""What a card's "Use in …" does in the browser, for what goes into rows or into the prompt.

Knows: LoRAs go into the rows of the txt2img tab, embeddings into its prompt; which tab has which
field. Does not know: what sets a field of a form (ui/app.py hands that over); how cards are drawn
(views/models.py).
"""

from __future__ import annotations

# Kinds that set a field of a tab's form: the tab and the field.
FIELD_BY_KIND = {
    "model": ("txt2img", "model"),
    "vae": ("txt2img", "vae"),
    "upscaler": ("upscale", "upscaler"),
}
# Where what was set is to be found, for what is not seen at once.
SET_PLACES = {"vae": "“Advanced”", "lora": "“LoRAs”", "embedding": "“Prompt”"}
_KINDS_IN_BROWSER = ("lora", "embedding")

# The tab may have to be drawn first.
USE_SCRIPT = """element.addEventListener('click', event => {
  const button = event.target.closest('button[data-action=use]');
  if (!button) return;
  const {kind, target, weight} = button.dataset;
  trigger('click', {action: 'use', kind, target});
  if (kind !== 'lora' && kind !== 'embedding') return;
  const tabs = [...document.querySelectorAll('#tabs [role=tab], #tabs .overflow-dropdown button')];
  tabs.find(tab => tab.textContent.trim() === 'txt2img').click();
  const put = tries => {
    const rows = document.querySelector('#txt2img-loras .lora-rows');
    const prompt = document.querySelector('#txt2img-prompt textarea');
    if (kind === 'lora' && rows) {
      rows.dispatchEvent(new CustomEvent('put', {detail: {name: target, weight: Number(weight)}}));
    } else if (kind === 'embedding' && prompt) {
      const before = prompt.value.replace(/[\\s,]+$/, '');
      const word = target.split('/').pop();
      prompt.value = before ? `${before}, ${word}` : word;
      prompt.dispatchEvent(new Event('input', {bubbles: true}));
    } else if (tries) setTimeout(put, 50, tries - 1);
  };
  put(60);
});"""


def list_usable_kinds() -> list[str]:
    """Return the kinds whose cards have the button."""
    return [*FIELD_BY_KIND, *_KINDS_IN_BROWSER]
