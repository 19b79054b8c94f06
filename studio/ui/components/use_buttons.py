"""What a card's "Use in txt2img" does in the browser, for what goes into rows or into the prompt.

Knows: LoRAs go into the rows of the txt2img tab, embeddings into its prompt. Does not know: what
sets a field of the form (ui/app.py hands that over); how cards are drawn (views/models.py).
"""

from __future__ import annotations

from studio.core.generation.request import GenerationRequest

# Kinds that set a field of the form; a kind has a button only where the form has the field.
FIELD_BY_KIND = {"model": "model", "vae": "vae", "upscaler": "hires_upscaler"}
_KINDS_IN_BROWSER = ("lora", "embedding")

# The tab may have to be drawn first.
USE_SCRIPT = """element.addEventListener('click', event => {
  const button = event.target.closest('button[data-action=use]');
  if (!button) return;
  const {kind, target} = button.dataset;
  if (kind !== 'lora' && kind !== 'embedding') {
    trigger('click', {action: 'use', kind, target});
    return;
  }
  const tabs = [...document.querySelectorAll('#tabs [role=tab], #tabs .overflow-dropdown button')];
  tabs.find(tab => tab.textContent.trim() === 'txt2img').click();
  const put = tries => {
    const rows = document.querySelector('#txt2img-loras .lora-rows');
    const prompt = document.querySelector('#txt2img-prompt textarea');
    if (kind === 'lora' && rows) {
      rows.dispatchEvent(new CustomEvent('put', {detail: target}));
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
    fields = GenerationRequest.model_fields
    by_field = [kind for kind, name in FIELD_BY_KIND.items() if name in fields]
    return [*by_field, *_KINDS_IN_BROWSER]
