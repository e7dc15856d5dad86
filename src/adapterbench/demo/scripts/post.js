// Send an image to the server; its answer is a token for the image, or what is wrong with it.
const post = async (file, name) => {
  if (file.size > props.max_bytes) {
    return {problem: `${name}: too many bytes. Use ${props.limits}`}
  }
  const form = new FormData()
  form.append('files', file, name)
  try {
    const answer = await fetch('gradio_api/upload', {method: 'POST', body: form})
    const content = await (answer.ok ? answer.json() : answer.text())
    return answer.ok ? {token: content[0]} : {problem: content}
  } catch (error) {
    return {problem: `${name} did not reach the server: try again`}
  }
}
