element.addEventListener('change', async ({target}) => {
  const [file] = target.files
  if (!file) return
  const answer = await post(file, file.name)
  target.value = ''  // so that the same file can be chosen again
  trigger('upload', answer)
})
element.addEventListener('click', ({target}) => {
  if (target.closest('.remove')) trigger('clear')
})
